"""A page for each id of the registry, and one that lists them all."""

import contextlib
import functools
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import comments
import jax
import numpy as np
from pages import ORPHAN, ROOT, Pages, table, words

from jaxrl import envs
from jaxrl.envs.__main__ import brief, cells
from jaxrl.envs.bridges import BRIDGES, PLAIN, bridge
from jaxrl.envs.outside import unwrapped
from jaxrl.envs.registry import Spec
from jaxrl.language import LanguageEnvironment
from jaxrl.spaces import Box, Discrete, TextSpace
from jaxrl.text.text import to_str

HEAD = "id | observation | action | max steps"
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \| .+ \|$", re.MULTILINE)
EXPLAINED = {"atari": "atari", "gymnasium": "environments-that-python-steps"}


def file_name(id: str) -> str:
    return id.replace("/", ".")


@functools.cache
def suites() -> dict[str, tuple[str, ...]]:
    """id -> (observation, action, limit), of what docs/suites.md has: its packages are not here."""
    rows = ROW.findall((ROOT / "docs" / "suites.md").read_text())
    return {id: tuple(rest) for id, *rest in rows}


def row(spec: Spec) -> tuple[str, str, str]:
    """Its spaces and its limit; a dash where only its own package knows them."""
    if spec.source == "native":
        return ("text", "text", "1") if spec.needs else cells(envs.make(spec.id))
    if spec.source == "atari":
        return "Box[84, 84, 4] uint8", "Discrete, of each game", "27000"
    return suites().get(PLAIN.get(spec.id, spec.id), ("-", "-", "-"))


def command(spec: Spec, action: str) -> str:
    """What trains on it."""
    given = f" --env-args {spec.needs}" if spec.needs and spec.source == "pgx" else ""
    if spec.id == "dataset":
        return "python -m train.grpo --env dataset --data FILE.jsonl --model FOLDER"
    if spec.is_language:
        return f"python -m train.grpo --env {spec.id} --algo.sft-steps 250"
    preset = "continuous" if action.startswith("Box") else ""
    preset = "memory" if spec.id == "MemoryChain-v0" else preset
    preset = "minatar" if spec.id.endswith("-MinAtar") else preset
    preset = preset or {"atari": "atari", "pgx": "board"}.get(spec.source, "")
    return f"python -m train.ppo --env {spec.id}{given}{f' --preset {preset}' * bool(preset)}"


@functools.cache
def learned() -> dict[str, list[tuple]]:
    """env -> what was measured on it, of benchmarks/results/learning."""
    found: dict[str, list[tuple]] = {}
    for file in sorted((ROOT / "benchmarks/results/learning").glob("*.json")):
        summary = json.loads(file.read_text())
        final = summary.get("final_return")
        if isinstance(final, dict) and "iqm" in final and "env" in summary:
            low, high = final["ci95"]
            steps = summary.get("env_steps") or summary.get("episodes") or ""
            steps = f"{steps:,}" if steps else ""
            spread = f"{final['iqm']:.3g} ({low:.3g} to {high:.3g})"
            link = f"[{file.stem}](benchmarks/results/learning/{file.name})"
            row = summary["algo"], steps, summary["num_seeds"], spread, link
            found.setdefault(summary["env"], []).append(row)
    return found


def fields(spec: Spec) -> str:
    """A table of its fields, with their defaults and what the source says of them."""
    inner = unwrapped(spec.constructor)
    if not isinstance(inner, type):
        return ""
    said, rows = comments.of_fields(inner), []
    for name, parameter in inspect.signature(spec.constructor).parameters.items():
        annotation, comment = said.get(name, ("", ""))
        kind = "structure" if annotation and _static(inner, name) else "number"
        default = parameter.default
        default = f"{default:.6g}" if isinstance(default, float) else default
        rows.append((f"`{name}`", f"`{default}`", kind, words(comment)))
    if not rows:
        return "It has no fields.\n"
    how = "`--env-args NAME=VALUE`, or `envs.make(id, NAME=VALUE)`"
    said = table("field | default | kind | meaning", rows)
    return f"{how}; a number may be swept and vmapped.\n\n{said}\n"


def _static(cls: Any, name: str) -> bool:
    return not cls.__dataclass_fields__[name].metadata.get("pytree_node", True)


def spaces(env: Any) -> str:
    """Both spaces in full."""
    rows = [("observation", f"`{brief(env.observation_space)}`", bounds(env.observation_space))]
    rows += [("action", f"`{brief(env.action_space)}`", bounds(env.action_space))]
    return table("space | shape and dtype | values", rows)


def bounds(space: Any) -> str:
    if isinstance(space, TextSpace):
        return f"a text of at most {space.capacity} bytes"
    if isinstance(space, Box):
        ends = [np.asarray(x, np.float64).ravel() for x in (space.low, space.high)]
        if all(np.all(x == x[:1]) for x in ends):
            ends = [x[:1] for x in ends]
        if ends[0].size > 8:
            return "bounds of its own for each entry"
        low, high = (", ".join(f"{x:.4g}" for x in y) for y in ends)
        return f"from {low} to {high}" if ends[0].size < 2 else f"from [{low}] to [{high}]"
    return f"0 to {space.n - 1}" if isinstance(space, Discrete) else ""


def look(pages: Pages, spec: Spec, env: Any) -> str:
    """A picture of a first state, or what a language agent reads first; "" where there is none."""
    if isinstance(env, LanguageEnvironment):
        _, first = jax.jit(env.reset)(jax.random.key(0))
        return f"Its first observation, of seed 0:\n\n~~~~~~~~text\n{to_str(first.obs)}\n~~~~~~~~\n"
    if not hasattr(env, "render"):
        return ""
    from matplotlib import image

    with contextlib.suppress(ValueError, NotImplementedError):  # it has no picture
        draw = jax.jit(lambda key: env.render(env.reset(key)[0]))
        file = pages.out / "ids" / f"{file_name(spec.id)}.png"
        file.parent.mkdir(exist_ok=True)
        image.imsave(file, np.asarray(draw(jax.random.key(0))))
        return f"![A first state of {spec.id}](site:{file.name})\n"
    return ""


def native(pages: Pages, spec: Spec) -> str:
    """What is known of one whose source is here."""
    cls: Any = unwrapped(spec.constructor)
    file = Path(inspect.getfile(cls)).resolve().relative_to(ROOT)
    module = words(inspect.getdoc(sys.modules[cls.__module__]))
    text = [words(inspect.getdoc(cls)), "## Source", f"[{file}]({file}): {module}"]
    if not spec.needs:
        env = envs.make(spec.id)
        limit = cells(env)[2]
        over = "none: the rules end an episode" if limit == "-" else f"{limit} steps"
        text[1:1] = [look(pages, spec, env), "## Spaces", spaces(env), f"Time limit: {over}."]
    return "\n\n".join([*text, "## Fields", fields(spec)])


def of_suite(pages: Pages, spec: Spec) -> str:
    """What is known of one that another package brings."""
    full = PLAIN.get(spec.id, spec.id)
    anchor = EXPLAINED.get(spec.source, _anchor(spec.source))
    text = [f"[{spec.source}](docs/environments.md#{anchor}): {words(bridge(spec.source).MENDS)}"]
    text += [
        f"`pip install 'jaxrl[{spec.source}]'`"
        + f". Making it downloads {spec.downloads}." * bool(spec.downloads)
    ]
    text += [f"`{spec.id}` is `{full}` by a plain name."] * (full != spec.id)
    observation, action, limit = row(spec)
    rows = [("observation", f"`{observation}`"), ("action", f"`{action}`"), ("max steps", limit)]
    if spec.id.endswith("-MinAtar"):  # of the suites, what we draw ourselves
        with contextlib.suppress(ImportError):
            text.append(look(pages, spec, envs.make(spec.id)))
    known = full in suites() or spec.source == "atari"
    unknown = "Its spaces: `python -c \"from jaxrl import envs; print(envs.make('" + full + "'))\"`"
    return "\n\n".join([*text, "## Spaces", table("space | values", rows) if known else unknown])


@functools.cache
def _anchor(suite: str) -> str:
    """The heading of docs/environments.md that tells of a suite."""
    text = (ROOT / "docs" / "environments.md").read_text()
    heads = [h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    names = {
        "navix": "navix-and-xminigrid",
        "xminigrid": "navix-and-xminigrid",
        "jaxatari": "jaxtari",
    }
    return next(h for h in heads if h == names.get(suite, suite) or h.endswith(f"-{suite}"))


def page(pages: Pages, spec: Spec) -> str:
    """The page of an id."""
    body = native(pages, spec) if spec.source == "native" else of_suite(pages, spec)
    train = command(spec, row(spec)[1])
    parts = [ORPHAN, f"# {spec.id}", "[All environments](site:index.md)", body]
    parts += [
        "## Train",
        f"```\n{train}\n```",
        "Which algorithm: [the chooser](docs/choose-an-algorithm.md).",
    ]
    if rows := learned().get(spec.id):
        parts += ["Measured final returns, interquartile mean over seeds with its 95 % interval:"]
        parts += [table("trainer | steps | seeds | return | record", rows)]
    return "\n\n".join(parts) + "\n"


def write(pages: Pages) -> None:
    """Every page of an id, and ids/index.md."""
    groups: dict[str, list[tuple]] = {}
    for id in envs.ids():
        spec = envs.spec(id)
        home = f"ids/{file_name(id)}.md"
        pages.write(home, pages.translated("", page(pages, spec), home))
        group = id.partition("/")[0] if spec.source == "native" and "/" in id else spec.source
        link = f"[{id}]({file_name(id)}.md)"
        groups.setdefault(group, []).append((link, *(f"`{x}`" for x in row(spec))))
    text = ["# All environments", INTRO]
    order = sorted(groups, key=lambda name: (name != "native", name in BRIDGES, name))
    for group in order:
        text += [f"## {group}", table(HEAD, groups[group])]
    pages.write("ids/index.md", "\n\n".join(text) + "\n")


INTRO = textwrap.dedent(
    """\
    Made from the registry: every id that `envs.make` and `--env` know, a page each. Native ones are
    first; the others come with a package of their own. [Environments](../environments.md) tells how
    ids, fields and limits work and how to add one; `python -m envs` prints this list."""
)
