"""The floors of the design, read from the imports, and the sizes of files and functions."""

import ast
import difflib
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("jaxrl", "envs", "train", "tests", "benchmarks")

FLOORS = [
    {"returns", "advantages", "losses", "objectives", "metrics", "text", "files"}
    | {
        "config",
        "hub",
        "files",
        "font",
        "frames",
        "statistics",
        "short_names",
        "preferences",
        "printable",
        "theirs",
    },  # mathematics and strings: each other downwards
    {"env", "spaces", "language", "host_world", "actions", "distributions"}
    | {"networks", "mesh"},  # objects
    {"checkpoint", "evaluate", "memory", "normalize", "off_policy", "on_policy", "opponents"}
    | {"policy"}
    | {"priorities", "program", "q_learning", "replay", "resets", "rollout"}
    | {"check", "host", "hosted", "lm", "sandbox", "sgd", "vec"}
    | {"physics", "wrappers"},  # loops and the state of the world
    {"algos"},  # one file for each algorithm
]
ENVS_MAY_USE = FLOORS[0] | FLOORS[1] | {"host", "opponents", "wrappers", "vec"}
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc", "base"}


def files(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def module(path: Path) -> tuple[str, ...]:
    """("jaxrl", "algos", "ppo") of jaxrl/algos/ppo.py; a package by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path) -> set[tuple[str, ...]]:
    """The modules of this project that a file imports, wherever in it; `if TYPE_CHECKING` not."""
    found = set()
    for node in nodes_that_run(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {short(*alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            start = short(*(node.module or "").split("."))
            found |= {deepest(*short(*start, alias.name)) for alias in node.names}
    return {name for name in found if name[0] in OURS}


def short(*parts: str) -> tuple[str, ...]:
    """jaxrl.envs and jaxrl.train by the folders that they lie in."""
    return parts[1:] if parts[0] == "jaxrl" and parts[1:2] in (("envs",), ("train",)) else parts


def nodes_that_run(tree: ast.AST) -> list[ast.AST]:
    nodes = [tree]
    for node in nodes:
        guard = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        nodes += node.orelse if guard else ast.iter_child_nodes(node)
    return nodes


def deepest(*parts: str) -> tuple[str, ...]:
    """The module that `from a.b import c` means: a.b.c where that is one, else a.b."""
    path = ROOT.joinpath(*parts)
    return parts if path.is_dir() or path.with_suffix(".py").is_file() else parts[:-1]


def floor(name: tuple[str, ...]) -> int:
    """The floor of a module of jaxrl."""
    return next(i for i, modules in enumerate(FLOORS) if name[1] in modules)


LIBRARY = [path for path in files("jaxrl") if module(path) != ("jaxrl",)]


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_a_module_of_the_library_has_a_floor_and_imports_none_from_above(path):
    here = module(path)
    assert any(here[1] in modules for modules in FLOORS), f"give jaxrl.{here[1]} a floor in FLOORS"
    for other in imported(path):
        assert other[0] == "jaxrl", f"the library knows no {other[0]}"
        assert other != ("jaxrl",), "jaxrl/__init__.py shows the library, which cannot use it"
        assert floor(other) <= floor(here), f"{'.'.join(other)} is on a floor above"


def imports_of(paths: list[Path]) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    return {module(path): imported(path) - {module(path)} for path in paths}


def cycle(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Modules that import each other in a ring, [] where there are none."""
    left = dict(graph)
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


def test_no_modules_import_each_other_in_a_ring():
    assert cycle(imports_of(files("jaxrl", "envs", "train"))) == []
    assert cycle({("a",): {("b",)}, ("b",): {("a",)}, ("c",): {("a",)}}) != []


ALGORITHMS = [path for path in files("jaxrl/algos") if path.name != "__init__.py"]


@pytest.mark.parametrize("path", ALGORITHMS, ids=names(ALGORITHMS))
def test_algorithms_never_import_each_other(path):
    assert not [other for other in imported(path) if other[:2] == ("jaxrl", "algos")]


def shared(one: Path, other: Path) -> float:
    """The share of two files' lines that stand in both in the same order."""
    texts = [
        [line.strip() for line in p.read_text().splitlines() if line.strip()] for p in (one, other)
    ]
    return difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()


@pytest.mark.parametrize(
    "pair", list(combinations(ALGORITHMS, 2)), ids=lambda pair: "-".join(p.stem for p in pair)
)
def test_no_algorithm_is_a_copy_of_another(pair):
    assert shared(*pair) < 0.2
    assert shared(pair[0], pair[0]) == 1


ENVS = [path for path in files("envs") if path.name != "__main__.py"]  # a command, no environment


@pytest.mark.parametrize("path", ENVS, ids=names(ENVS))
def test_environments_use_objects_and_mathematics_only(path):
    for other in imported(path):
        allowed = other[0] == "envs" or (other[0] == "jaxrl" and other[1:2] != ())
        assert allowed and (other[0] == "envs" or other[1] in ENVS_MAY_USE), ".".join(other)


@pytest.mark.parametrize("path", files("train"), ids=names(files("train")))
def test_trainers_import_no_tests_and_no_benchmarks(path):
    assert not [other for other in imported(path) if other[0] in ("tests", "benchmarks")]


SOURCES = files(*OURS)


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_a_file_has_at_most_400_lines_and_a_function_60(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_no_module_is_named_for_nothing_in_particular():
    assert not [path for path in SOURCES if FORBIDDEN_NAMES & set(module(path))]


def test_the_reader_of_imports_sees_every_way_to_import(tmp_path):
    """Or the floors would be held by nothing."""
    file = tmp_path / "module.py"
    file.write_text(
        "import jaxrl.env\n"
        "from jaxrl import sgd, load_policy\n"
        "from jaxrl.algos.ppo import Config\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import train.loop\n"
        "def late():\n    from envs import registry\n"
    )
    assert imported(file) == {
        ("jaxrl", "env"),
        ("jaxrl", "sgd"),
        ("jaxrl",),
        ("jaxrl", "algos", "ppo"),
        ("envs", "registry"),
    }
