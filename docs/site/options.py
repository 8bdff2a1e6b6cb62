"""A page for each trainer and tool: what it promises, its presets, all its options."""

import dataclasses
import importlib
import re
import textwrap
import typing
from typing import Any

import comments
from pages import ORPHAN, Pages, words

from jaxrl.train.table import TOOLS, TRAINERS, trainer

GLUE = "\u00a0"  # between words of one line


def shown(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def kind(annotation: str) -> str:
    """What a flag takes, as the command line's help has it: a type, or the choices."""
    text = annotation.replace(" | None", "").replace("'", "").replace("Count", "int")
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"\1 ...", text)
    return re.sub(r"Literal\[(.*)\]", lambda x: "|".join(filter(None, x[1].split(", "))), text)


def options(cls: Any, default: Any, prefix: str = "") -> list[str]:
    """A directive for each flag of a dataclass, those of dataclasses inside it too."""
    found, inner = [], []
    said, hints = comments.of_fields(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        name, value = prefix + field.name.replace("_", "-"), getattr(default, field.name, None)
        if dataclasses.is_dataclass(hints[field.name]):
            inner += [f"## {name}", *options(hints[field.name], value, f"{name}.")]
            continue
        annotation, comment = said.get(field.name, ("", ""))
        fixed = field.default is not dataclasses.MISSING or prefix
        by_default = f"Default: `{shown(value)}`." if fixed and shown(value) else ""
        text = f"{words(comment)}{'.' * (comment[-1:] not in '.?')} {by_default}".strip()
        flag = f"--{name} <{kind(annotation)}>"
        if hints[field.name] is bool:
            flag = f"--{name}, --{prefix}no-{name.removeprefix(prefix)}"
        found.append(f"~~~~{{option}} {flag}\n{text}\n~~~~")
    return found + inner


def given(name: str, value: Any) -> str:
    """An option of an algorithm, as it is given."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--algo.{'' if value else 'no-'}{flag}"
    return f"--algo.{flag} {shown(value)}".replace(" ", GLUE)


def presets(name: str) -> list[str]:
    """What each preset changes."""
    made = trainer(name)
    if list(made.presets) in ([], ["default"]):
        return []
    plain, text = made.options().algo, ["## Presets", f"`python -m train.{name} --preset NAME`"]
    for preset, config in made.presets.items():
        pairs = [(f.name, getattr(config, f.name)) for f in dataclasses.fields(config)]
        changed = [given(n, x) for n, x in pairs if x != getattr(plain, n)]
        lines = "\n".join(textwrap.wrap("  ".join(changed), 88, break_on_hyphens=False))
        text += [f"**{preset}**", f"```\n{lines.replace(GLUE, ' ')}\n```" if lines else "As it is."]
    return text


def page(name: str) -> str:
    """The page of a trainer or a tool."""
    module = importlib.import_module(f"jaxrl.train.{name}") if name != "envs" else None
    head = [ORPHAN, f"# train.{name}", words(TRAINERS.get(name) or TOOLS[name]) + "."]
    if name in TRAINERS:
        made = trainer(name)
        cls, default = made.options, made.options()
        algorithm = made.algorithm.__name__.rpartition(".")[2]
        head += [f"The algorithm: [reference](../reference/jaxrl.algos.{algorithm}.md)."]
    else:
        cls, default = getattr(module, "Args", None), None
    if module is not None:
        head += [words(module.__doc__)]
    body = [f"~~~~{{program}} train.{name}\n~~~~"]
    body += presets(name) if name in TRAINERS else []
    if cls is not None:
        values = default if default is not None else _defaults(cls)
        body += ["## Options", *options(cls, values)]
    return "\n\n".join([*head, *body]) + "\n"


def _defaults(cls: Any) -> Any:
    """The defaults of a tool's options, by name; of those without one nothing."""
    found = {}
    for f in dataclasses.fields(cls):
        if f.default is not dataclasses.MISSING:
            found[f.name] = f.default
        elif f.default_factory is not dataclasses.MISSING:
            found[f.name] = f.default_factory()
    return type("Defaults", (), found)()


def write(pages: Pages) -> None:
    """Every page of a trainer and a tool, and options/index.md."""
    text = [
        "# Every option",
        "Of each trainer and tool: `python -m train.NAME --help` says the same.",
    ]
    for title, names in (("Trainers", TRAINERS), ("Tools", TOOLS)):
        text += [f"## {title}"]
        text += ["\n".join(f"- [train.{n}]({n}.md): {words(line)}" for n, line in names.items())]
        for name in names:
            pages.write(f"options/{name}.md", page(name))
    pages.write("options/index.md", "\n\n".join(text) + "\n")
