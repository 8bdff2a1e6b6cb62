"""The package by its names: long and short, from any folder, whatever else lies there."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import envs
import jaxrl.envs
import jaxrl.train
import train
from envs.classic import cartpole
from jaxrl.train import __main__ as console
from jaxrl.train.table import TOOLS, TRAINERS
from train import loop

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # s that a process may take

QUICK = ("--total-steps", "64", "--num-envs", "4", "--algo.num-steps", "8", "--algo.hidden", "8")
QUICK += ("--algo.num-epochs", "1", "--algo.num-minibatches", "1", "--eval-episodes", "2")


def python(folder: Path, *words: str, path: Path = ROOT) -> subprocess.CompletedProcess:
    """Python in this folder, to which the package is at `path`."""
    known = os.environ | {"PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=known, timeout=PATIENCE, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A working directory in which a user's own files have the project's names."""
    for name in ("envs.py", "train.py", "registry.py", "flags.py", "loop.py"):
        (tmp_path / name).write_text(f"raise AssertionError('{name} of the user was imported')\n")
    for name in ("envs", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise AssertionError('{name}/ imported')\n")
    (tmp_path / "jaxrl").mkdir()  # as the folder that holds a clone has one
    return tmp_path


def test_the_short_names_are_the_same_modules_and_there_is_one_registry():
    assert envs is jaxrl.envs and train is jaxrl.train
    assert cartpole is jaxrl.envs.classic.cartpole and loop is jaxrl.train.loop
    for name in ("envs.classic.cartpole", "train.flags"):
        assert importlib.import_module(name) is importlib.import_module(f"jaxrl.{name}")
    assert envs.registry is jaxrl.envs.registry
    assert isinstance(jaxrl.envs.make("CartPole-v1").env, cartpole.CartPole)


LONG_NAMES = """
import sys
import jaxrl.envs, jaxrl.train.evaluate
from jaxrl.train.__main__ import main
assert not {"envs", "train"} & sys.modules.keys()
jaxrl.envs.make("CartPole-v1")
sys.argv = ["jaxrl", "ppo", "--help"]
try:
    main()
except SystemExit as stopped:
    slow = {"scipy.stats", "matplotlib", "tensorboardX", "orbax.checkpoint"} & sys.modules.keys()
    sys.exit(stopped.code or ", ".join(slow) or 0)
"""


def test_long_names_and_the_console_command_work_whatever_lies_in_the_folder(hostile):
    """And `--help` waits for nothing that only a run needs."""
    done = python(hostile, "-c", LONG_NAMES)
    assert done.returncode == 0, done.stderr
    assert "solves CartPole-v1" in done.stdout and "--algo.learning-rate" in done.stdout


def test_a_trainer_runs_by_its_long_name_whatever_lies_in_the_folder(hostile):
    done = python(hostile, "-m", "jaxrl.train.ppo", "--help")
    assert done.returncode == 0, done.stderr
    assert "solves CartPole-v1" in done.stdout


SHORT_NAMES = """
from importlib.util import find_spec
import envs, train.ppo
import jaxrl.envs, jaxrl.train.ppo
for name in ("envs.__main__", "train.__main__"):  # what `python -m` runs
    assert "main" in find_spec(name).loader.get_code(name).co_names
assert envs is jaxrl.envs and train.ppo is jaxrl.train.ppo
envs.register("mine/Cart-v0", envs.spec("CartPole-v1").constructor, max_steps=7)
print(jaxrl.envs.make("mine/Cart-v0").max_steps)
"""


def test_short_names_work_outside_the_checkout(tmp_path):
    done = python(tmp_path, "-c", SHORT_NAMES)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr
    done = python(tmp_path, "-m", "train.ppo", "--algo.gama", "1")
    assert done.returncode == 2 and "Perhaps you meant: --algo.gamma" in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_environments_are_listed_by_their_short_name_outside_the_checkout(tmp_path):
    done = python(tmp_path, "-m", "envs")
    assert done.returncode == 0 and "CartPole-v1" in done.stdout, done.stderr
    heads = [line for line in done.stdout.splitlines() if " max steps" in line]
    assert heads[0].startswith("native: ") and any(line.startswith("language: ") for line in heads)
    assert set(done.stdout.split()) > {*envs.ids()}


OWN_ENVS = """
import jax
from jaxrl.envs.grid.corridor import SimpleCorridor
ready = jax.devices()
class Lamp(SimpleCorridor):
    pass
"""

MAKE_FROM_OWN_ENVS = """
import sys
sys.path = [path for path in sys.path if path]  # as the console command has it
from jaxrl import envs
from jaxrl.train.devices import offer_cores
offer_cores()
print(type(envs.make("envs.lamp:Lamp")).__module__, sys.path[0] == sys.argv[1])
"""


def test_a_package_of_the_users_that_is_called_envs_is_where_their_environments_are_found(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "lamp.py").write_text(OWN_ENVS)
    (tmp_path / "envs" / "__init__.py").touch()
    done = python(tmp_path, "-c", MAKE_FROM_OWN_ENVS, str(tmp_path))
    assert (done.stdout, done.returncode) == ("envs.lamp False\n", 0), done.stderr


def say(monkeypatch, capsys, *words: str) -> tuple[object, str, str]:
    """(exit code, what it said, its errors) of the console command."""
    monkeypatch.setattr(sys, "argv", ["jaxrl", *words])
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = None
    try:
        console.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_without_a_name_every_trainer_and_tool_is_listed_with_a_line(monkeypatch, capsys, words):
    code, said, _ = say(monkeypatch, capsys, *words)
    assert code is None
    for name, line in (TRAINERS | TOOLS).items():
        assert f"  {name:12} {line}\n" in said
    assert "python -m train.NAME" in said
    heads = [said.index(f"\n{title}:\n") for title in ("train", "look", "tools")]
    assert heads == sorted(heads) and heads[1] < said.index("  report ") < heads[2]


def test_a_tab_completes_every_command_and_option_and_imports_nothing_of_ours(
    monkeypatch, capsys, tmp_path
):
    file = tmp_path / "jaxrl.bash"
    code, *_ = say(monkeypatch, capsys, "--tyro-write-completion", "bash", str(file))
    assert code in (None, 0)
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _tyro_jaxrl; '
    ask += 'echo "${COMPREPLY[*]}"; complete -p'
    for words, found in (
        (("jaxrl", "pp"), "ppo"),
        (("jaxrl", "ppo", "--algo.learning-r"), "--algo.learning-rate"),
        (("jaxrl", "ppo", "--algo.activation", "re"), "relu"),
        (("jaxrl", "report", "--o"), "--out"),
    ):
        done = subprocess.run(
            ["bash", "-c", ask, file, *words], capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.stdout == f"{found}\ncomplete -F _tyro_jaxrl jaxrl\n", done.stderr
    imports = re.findall("^ *(?:import|from) (.*)", file.read_text(), re.MULTILINE)
    assert imports and all(line.split()[0] in ("sys", "typing") for line in imports)


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_of_the_table_is_a_module_that_says_what_it_promises(name):
    trainer = jaxrl.train.table.trainer(name)
    assert trainer.name == name and len(trainer.description) > 40
    assert all(isinstance(config, trainer.algorithm.Config) for config in trainer.presets.values())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pppo",), "error: 'pppo' is no trainer and no tool; did you mean ppo or dpo or turn_ppo"),
        (("", "x"), "error: '' is no trainer and no tool; `jaxrl` lists them.\n"),
        (("a  b\0",), "error: 'a b\\x00' is no trainer and no tool; `jaxrl` lists them.\n"),
        (
            ("envs", "Cart"),
            "error: Unrecognized options: Cart; python -m envs has --markdown alone.\n",
        ),
        (
            ("ppo", "--preset", "fast"),
            "error: preset=fast is none of train.ppo; try atari, board, ",
        ),
        (("ppo", "--algo.gama", "1"), "error: Unrecognized options: --algo.gama, 1; Perhaps"),
        (("watch",), "error: Missing from python -m train.watch: --run PATH "),
        (("evaluate", "--run", "nowhere"), "error: run=nowhere is not there; give a folder"),
        (
            ("--tyro-print-completion", "sh"),
            "error: --tyro-print-completion sh must be --tyro-print",
        ),
        (
            ("ppo", "--tyro-print-completion", "bash"),
            "error: --tyro-print-completion is an option of the command jaxrl: jaxrl --tyro-",
        ),
        (("aot", "--trainer", "pppo"), "error: trainer=pppo is none; try one of ppo, pqn, "),
    ],
)
def test_what_the_console_command_cannot_do_is_one_line(monkeypatch, capsys, words, error):
    code, said, errors = say(monkeypatch, capsys, *words)
    assert (code, said) == (2, "")
    assert errors.startswith(error) and errors.count("\n") == 1


def test_a_run_is_resumed_by_the_trainer_that_made_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"trainer": "sft", "options": {}}))
    code, _, errors = say(monkeypatch, capsys, "ppo", "--resume", str(tmp_path))
    assert code == 2 and errors == (
        f"error: resume={tmp_path} was made by train.sft; "
        f"try python -m train.sft --resume {tmp_path}.\n"
    )


@pytest.mark.parametrize("how", [("ppo", "--env"), ("ppo", "--resume")])
def test_a_language_id_or_run_goes_on_with_the_trainer_of_language_agents(capsys, tmp_path, how):
    name, flag = how
    config = {"trainer": "turn_ppo", "options": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    value = {"--env": "language/GuessTheNumber-easy", "--resume": str(tmp_path)}[flag]
    assert jaxrl.train.command.choose(name, [flag, value]).name == "turn_ppo"
    said = capsys.readouterr().err
    assert flag == "--resume" or said == (
        "language/GuessTheNumber-easy is a language environment: train.turn_ppo takes over\n"
    )


@pytest.mark.slow
def test_the_wheel_alone_trains_whatever_lies_in_the_folder(hostile, tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", place, ROOT], check=True, timeout=PATIENCE)
    (wheel,) = place.glob("jaxrl-*.whl")
    site = place / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    where = python(hostile, "-c", "import jaxrl.envs as e; print(e.__file__)", path=site)
    assert where.stdout.startswith(str(site)), where.stderr
    for start in (("-m", "jaxrl.train.ppo"), (str(site / "bin/jaxrl"), "ppo")):
        folder = place / start[-1].replace(".", "-")
        done = python(hostile, *start, *QUICK, "--run-dir", str(folder), path=site)
        assert done.returncode == 0, done.stderr
        assert (folder / "policy/weights.npz").is_file()
    empty = place / "empty"
    empty.mkdir()
    assert python(empty, "-c", SHORT_NAMES, path=site).stdout == "7\n"
