"""The notebook, cell by cell, in a folder that is not the checkout."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


def cells():
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shown = types.ModuleType("IPython.display")
    shown.Image = lambda path: Path(path).read_bytes()
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    names = {}
    for cell in cells():
        if cell.startswith("%%writefile "):
            head, body = cell.split("\n", 1)
            (tmp_path / head.split()[1]).write_text(body)
        elif cell.startswith("!jaxrl "):
            command = [sys.executable, "-m", "jaxrl.train", *cell.split()[1:]]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            assert "final return: mean" in done.stdout
        else:
            exec(cell, names)
    assert names["play"](names["jax"].random.key(1)).episode_return.mean() > 400
    assert json.loads((tmp_path / "bandit-run" / "summary.json").read_text())["env_steps"] > 50000
