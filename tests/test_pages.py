"""What the documentation says is true: its commands, its lines of code, the errors it quotes."""

import ast
import dataclasses
import re
import shlex
import sys
import typing
from pathlib import Path

import pytest

import jaxrl
from jaxrl.train import __main__ as listing
from jaxrl.train import command, flags, in_python, paths, table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fences(page, language=None):
    """The fenced texts of a page, of one language."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if language in (None, name)]


def commands(text):
    """(name, words) of each `python -m train.NAME` and `jaxrl NAME`, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^(pip install .* && )?", "", line.strip())
        found = re.match(r"(?:python -m train\.|jaxrl )(\w+)(.*)", line)
        if found:
            yield found[1], shlex.split(found[2], comments=True)


def known_flags(cls, prefix="--"):
    """The flags of a dataclass of options."""
    found, hints = set(), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(hints[field.name]):
            found |= known_flags(hints[field.name], f"{name}.")
        else:
            found |= {name}
            found |= (
                {re.sub(r"(\w[\w-]*)$", r"no-\1", name)} if hints[field.name] is bool else set()
            )
    return found


def options(name):
    """The dataclass of a trainer's options, or of a tool's; None where it has none of its own."""
    if name in table.TRAINERS:
        return table.trainer(name).options
    module = __import__(f"jaxrl.train.{name}", fromlist=["Args"]) if name != "envs" else None
    return getattr(module, "Args", None)


def serving(name, words):
    """The trainers whose options a command may have: the one it leaves its environment to, too."""
    given = flags.words_by_flag(words)
    if name in ("sweep", "aot"):
        name = given.get("--trainer") or "ppo"
        return [name, "grpo"]
    trainer = table.trainer(name) if name in table.TRAINERS else None
    others = (trainer.for_language, trainer.for_arrays) if trainer else ()
    if trainer and "--reward-model" in given:
        others = (*others, trainer.for_reward_model)
    return [name, *filter(None, others)]


OF_TOOLS = {"--topology", "--trainer", "--help"}  # read before any dataclass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_has_a_trainer_and_options_that_exist(page):
    for name, words in (found for text in fences(page) for found in commands(text)):
        if name == "NAME":
            continue
        assert name in table.TRAINERS or name in table.TOOLS, name
        known = {"--" + short.removeprefix("--") for short in flags.SHORT} | OF_TOOLS
        for each in serving(name, words):
            known |= known_flags(options(each)) if options(each) else set()
        for flag in flags.words_by_flag(flags.full_names(words)):
            assert flag in known, f"{page.name}: train.{name} has no {flag}"


def test_the_commands_beside_the_peers_are_parsed_as_the_command_line_does(monkeypatch):
    monkeypatch.setattr(paths, "check", lambda *args: None)  # their files are examples
    text = "".join(fences(ROOT / "docs/coming-from.md", "console"))
    assert text.count("python -m train.") == len(list(commands(text))) >= 10
    for name, words in commands(text):
        words = flags.full_names(words)
        trainer = table.trainer(name)
        if ":" not in (flags.flag_value(words, "--env") or ""):
            trainer = command.choose(trainer, words)
        args = flags.parse(trainer, words)
        assert args.env == (flags.flag_value(words, "--env") or trainer.options.env)


@pytest.mark.parametrize("page", ["coming-from", "add"])
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxrl.envs.registry, "_specs", dict(jaxrl.envs.registry._specs))
    asked = []

    def train(trainer, **given):
        asked.append(in_python._options(trainer, {n: x for n, x in given.items()}))
        return "run"

    monkeypatch.setattr(jaxrl, "train", train)
    monkeypatch.setattr(jaxrl, "load_policy", lambda folder: folder)
    blocks = fences(ROOT / f"docs/{page}.md", "python")
    assert len(blocks) >= 2
    for i, block in enumerate(blocks):
        exec(compile(block, f"{page}.md, block {i}", "exec"), {"__name__": f"{page}{i}"})
    if page == "coming-from":
        assert asked[0][1].algo.total_steps == 500_000 and asked[0][1].num_seeds == 10


def patterns():
    """A regular expression for each text of the source that has words enough to be known by."""
    for file in (
        path for folder in ("jaxrl", "envs", "train") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts = [x.value if isinstance(x, ast.Constant) else None for x in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts = [node.value]
            else:
                continue
            if sum(len(re.findall(r"\w+", str(x))) for x in texts if x) >= 3:
                yield re.compile("".join(".*" if x is None else re.escape(str(x)) for x in texts))


def test_every_error_of_the_faq_is_still_one_of_the_program():
    known, quoted = list(patterns()), fences(ROOT / "docs/faq.md", "text")
    assert len(quoted) >= 20
    for line in quoted:
        assert any(p.fullmatch(line.strip()) for p in known), line
    assert not any(p.fullmatch("No environment 'X' here; try another.") for p in known)


def test_the_readme_is_two_screens_and_has_the_commands_of_ci():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    assert "pip install -e . && python -m train.ppo" in text and "pip install -e '.[test]'" in text
    assert "pip install --quiet -e .\n" in (ROOT / ".ci/run").read_text()
    for anchor in ("docs/add.md", "docs/faq.md", "docs/choose-an-algorithm.md", "notebooks"):
        assert f"]({anchor}" in text


@pytest.fixture
def site(monkeypatch):
    """The modules that make the site, without Sphinx."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    names = ("environments", "options", "pages", "reference", "comments")
    yield {name: __import__(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def test_the_site_has_a_page_for_every_id_trainer_and_tool(site, tmp_path, monkeypatch):
    registry, ours = jaxrl.envs.registry, {"native", *site["environments"].BRIDGES}
    known = {id: spec for id, spec in registry._specs.items() if spec.source in ours}
    monkeypatch.setattr(registry, "_specs", known)  # without what other tests registered
    monkeypatch.setattr(site["environments"], "look", lambda *args: "")  # compiles
    pages = site["pages"].Pages(tmp_path)
    site["environments"].write(pages)
    site["options"].write(pages)
    ids = jaxrl.envs.ids()
    listed = (tmp_path / "ids" / "index.md").read_text()
    for id in ids:
        page = (tmp_path / "ids" / f"{id.replace('/', '.')}.md").read_text()
        assert f"# {id}\n" in page and f"--env {id}" in page and f"[{id}](" in listed
        for name, words in commands(page):
            env, field = flags.flag_value(words, "--env"), flags.flag_value(words, "--preset")
            assert env == id and (field is None or field in table.trainer(name).presets)
    assert "| `gravity` | `9.8` | number | m/s^2 |" in (tmp_path / "ids/CartPole-v1.md").read_text()
    for name in [*table.TRAINERS, *table.TOOLS]:
        page = (tmp_path / "options" / f"{name}.md").read_text()
        if options(name):
            lines = re.findall(r"\{option\} (.+)", page)
            flagged = {flag for line in lines for flag in re.findall(r"--[\w.-]+", line)}
            assert flagged == known_flags(options(name))


def test_a_link_of_the_site_that_leads_nowhere_is_an_error(site, tmp_path):
    pages = site["pages"].Pages(tmp_path)
    text = "[a](docs/design.md#devices) `[b](none.md)` [c](jaxrl/env.py) [d](https://x.org)"
    made = pages.translated("README.md", text)
    assert made.startswith("[a](design.md#devices)") and "[c](source/jaxrl/env.py.md)" in made
    assert (tmp_path / "source/jaxrl/env.py.md").is_file() and "(https://x.org)" in made
    with pytest.raises(ValueError, match=r"README.md: the link none.md leads nowhere"):
        pages.translated("README.md", "[b](none.md)")
    for page in PAGES:
        pages.translated(str(page.relative_to(ROOT)), page.read_text())


def test_what_the_library_shows_is_in_the_reference(site):
    reference = site["reference"]
    text = "".join(reference.page(file) for file in reference.modules())
    for name in ("check_env", "load_policy", "timestep", "make_vec", "gae", "train", "evaluate"):
        assert f"{{py:function}} {name}(" in text
    for name in ("Environment", "TimeStep", "VecEnv", "Config", "TimeLimit", "Box"):
        assert f"{{py:class}} {name}\n" in text
    assert listing.__doc__ and "jaxrl.short_names" not in text
