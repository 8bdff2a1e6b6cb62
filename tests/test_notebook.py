"""The notebooks, cell by cell, at a small size and in a folder that is not the checkout."""

import json
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jaxrl.train import __main__ as command
from jaxrl.train import ppo
from jaxrl.train.table import TOOLS

FOLDER = Path(__file__).parent.parent / "notebooks"
SMALL = {  # what stands in the place of a notebook's parameters
    "quickstart": {"TOTAL_STEPS": 20_000, "NUM_SEEDS": 2},
    "your_own_environment": {"TOTAL_STEPS": 4_096},
    "in_your_own_loop": {"TOTAL_STEPS": 8_192},
    "sweeps_and_randomisation": {"TOTAL_STEPS": 4_096, "NUM_SEEDS": 2},
    "language_agent_from_scratch": {"EPISODES": 512, "EVALUATE": 16},
    "grpo_on_a_pretrained_model": {
        "MODEL": "tiny",
        "EPISODES": 32,
        "EVALUATE": 8,
        "SIZES": "--algo.num-prompts 4 --algo.group-size 4 --algo.response-tokens 10 --lora-rank 2",
    },
}


WATCHES, VARIES = "watch" in TOOLS, hasattr(ppo.Args, "randomise")


def cells(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text(cell):
    return "".join(cell["source"])


def jaxrl(words, monkeypatch, apart=False):
    """The command `jaxrl`, in this process or in one of its own."""
    if apart:
        done = subprocess.run([sys.executable, "-m", "jaxrl.train", *words], timeout=300)
        assert done.returncode == 0, words
        return
    monkeypatch.setattr(sys, "argv", ["jaxrl", *words])
    command.main()


def play(name, monkeypatch, apart=False):
    """Runs a notebook in the working directory; its names."""
    shown = types.ModuleType("IPython.display")
    shown.Image = lambda path: Path(path).read_bytes()
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    names = {}
    for cell in cells(name):
        if cell["metadata"].get("tags") == ["parameters"]:
            exec(text(cell), names)
            assert SMALL[name].keys() <= names.keys()
            names |= SMALL[name]
        elif text(cell).startswith("%%writefile "):
            head, body = text(cell).split("\n", 1)
            Path(head.split()[1]).write_text(body)
        elif text(cell).startswith("!jaxrl "):
            jaxrl(
                shlex.split(text(cell)[7:].replace("\\\n", " ").format(**names)), monkeypatch, apart
            )
        else:
            exec(text(cell), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.ipynb")))
def test_a_notebook_has_an_install_cell_parameters_and_no_outputs(name):
    first, second, *others = cells(name)
    assert all(line.startswith("#") for line in text(first).splitlines())
    assert "pip install" in text(first) and second["metadata"]["tags"] == ["parameters"]
    given = set(re.findall(r"^(\w+) = ", text(second), re.MULTILINE))
    assert given == SMALL[name].keys()
    for cell in (first, second, *others):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        if text(cell).startswith("!"):
            tool = text(cell).split()[1]
            assert tool in {**command.TRAINERS, **TOOLS} or (tool == "watch" and not WATCHES)


@pytest.mark.slow
@pytest.mark.skipif(not WATCHES, reason="there is no train.watch")
def test_the_quickstart_runs(folder, monkeypatch):
    names = play("quickstart", monkeypatch, apart=True)
    assert names["play"](names["jax"].random.key(1)).episode_return.shape == (16,)
    assert names["returns"].shape[1] == 2
    assert json.loads((folder / "quickstart" / "summary.json").read_text())["num_seeds"] == 2


@pytest.mark.slow
def test_your_own_environment_runs(folder, monkeypatch, capsys):
    names = play("your_own_environment", monkeypatch)
    assert "fuel" in capsys.readouterr().out  # what check_env said of the faulty one
    assert names["returns"].shape == (100,)
    assert (folder / "mars" / "summary.json").is_file()


@pytest.mark.slow
def test_the_loop_of_your_own_runs(folder, monkeypatch):
    names = play("in_your_own_loop", monkeypatch)
    assert names["reward"].shape == (1000, 64) and names["scores"].shape == (12,)


@pytest.mark.slow
@pytest.mark.skipif(not VARIES, reason="there is no --randomise")
def test_sweeps_and_randomisation_run(folder, monkeypatch):
    names = play("sweeps_and_randomisation", monkeypatch)
    assert names["returns"].shape == (8,)
    assert json.loads((folder / "sweep" / "sweep.json").read_text())


@pytest.mark.slow
def test_the_language_notebooks_run_with_a_model_of_our_own(folder, monkeypatch):
    play("language_agent_from_scratch", monkeypatch)
    jaxrl(["export", "--run", "guesser", "--out", "tiny"], monkeypatch)
    names = play("grpo_on_a_pretrained_model", monkeypatch)
    assert "final_return" in names["summary"] and (folder / "taught-model/config.json").is_file()
