"""What a user gets wrong: one line with the reason and a way out, exit code 2, nothing touched."""

import json
import math
import shutil
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxrl.checkpoint import Checkpoints, abstract
from train import command, evaluate, flags, loop, ppo
from train.run_folder import RunFolder

CORRIDOR = ("--env", "SimpleCorridor-v0")
SHARED = (
    "--num-envs",
    "6",
    "--algo.accumulate",
    "24",
    "--devices",
    "2",
)  # of 120 rows, so of 60 on each
HOST = "--hosts.coordinator"


@pytest.fixture
def refused(monkeypatch, capfd):
    """Runs a command line that must be refused before anything is traced; what it said."""

    def never(*args, **kwargs):
        raise AssertionError("a program was made")

    monkeypatch.setattr(loop, "make_program", never)

    def run(*argv: object, trainer: str = "ppo") -> str:
        with pytest.raises(SystemExit) as stop:
            command.run(trainer, [str(word) for word in argv])
        out, err = capfd.readouterr()
        assert (stop.value.code, out) == (2, "")
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """The folder of a run in SimpleCorridor-v0 that was stopped, with two checkpoints."""
    folder = tmp_path / "run"
    args = flags.parse(ppo.TRAINER, [*CORRIDOR, "--run-dir", str(folder)])
    RunFolder.create(folder, args, writes=True, trainer="ppo").close()
    (folder / "metrics.jsonl").write_text('{"iteration": 1}\n{"iteration": 2}\n')
    save_checkpoints(folder, "SimpleCorridor-v0")
    return folder


STATE = {"weight": jnp.arange(999.0), "step": jnp.zeros((), jnp.int32)}


def run_of(env: str) -> dict:
    return {"trainer": "ppo", "env": env, "env_args": [], "seed": 0, "num_seeds": 1}


def save_checkpoints(folder: Path, env: str) -> None:
    saved = Checkpoints(folder / "checkpoints")
    for iteration in (1, 2):
        saved.save(iteration, STATE, run_of(env))
    saved.close()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--env", "Cartpole"), ("'Cartpole'", "near: CartPole-v1")),
        (("--env", "CartPole-v0"), ("'CartPole-v0'", "CartPole-v1", "python -m envs")),
        ((*CORRIDOR, "--env-args", "lenght=9"), ("'lenght'", "near: length")),
        ((*CORRIDOR, "--env-args", "length"), ("env_args=length", "NAME=VALUE", "length=20")),
        ((*CORRIDOR, "--env-args", "length=long"), ("length='long'", "an integer", "try 10")),
        ((*CORRIDOR, "--env-args", "max_steps=0"), ("max_steps=0", ">= 1", "try 100")),
        (("--preset", "fast"), ("preset=fast is none of train.ppo; try ", "default")),
        (("--preset", ""), ("preset= is none of train.ppo; try ", "default")),
        (("--env", ""), ("No environment ''",)),
        (("--env", "../x:Y"), ("'../x:Y' must be my_module:Id",)),
        ((*CORRIDOR, "--env-args", "id=5"), ("has no field 'id'",)),
        ((*CORRIDOR, "--env-args", "=5"), ("env_args==5 must be NAME=VALUE; try length=20",)),
        ((*CORRIDOR, "--env-args", "length=3", "length=4"), ("has length twice; give it once",)),
        (("--env-args", "gravity=inf"), ("gravity=inf must be a number from", "try 9.8")),
        (("--env-args", "a=1", "--env-args", "b=2"), ("env_args is given twice; give all",)),
        (("--env", "SimpleCorridor-v0", "--env", "nowhere"), ("No environment 'nowhere'",)),
        (("extra", "words"), ("Unrecognized options: extra, words",)),
        (
            ("--algo.network", ".x:Y"),
            ("network=.x:Y must be mlp, cnn, gru, lstm or my_module:MyNet",),
        ),
        (
            ("--algo.num-steps", "40", "--algo.num-minibatches", "2", *SHARED),
            ("devices=2", "1 blocks", "a smaller accumulate", "--devices 1"),
        ),
        (("--algo.network", "cnn"), ("network=cnn", "image", "try network=mlp")),
        (("--devices", "9"), ("devices=9", "8 there are", "--devices 8")),
        (("--num-envs", "4", "--devices", "8"), ("devices=8", "4 blocks", "--devices 4")),
        (("--num-seeds", "3", "--num-envs", "6", "--devices", "4"), ("6 blocks", "--devices 2")),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(refused, tmp_path, argv, words):
    said = refused(*argv, "--run-dir", tmp_path / "run")
    for word in words:
        assert word in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ("--algo.num-minibatches", "7"),
            "num_minibatches=7 does not divide num_envs*num_steps=2048; try 4 or 8.",
        ),
        (("--algo.num-minibatches", "0"), "num_minibatches=0 must be"),
        (("--num-envs", "-1"), "num_envs=-1 must be"),
        (("--num-envs", "0"), "num_envs=0 must be"),
        (("--num_envs=0",), "num_envs=0 must be"),
        (("--total-steps", "0"), "total_steps=0 must be"),
        (
            ("--algo.accumulate", "3"),
            "accumulate=3 does not divide rows per minibatch=512; try 2 or 4.",
        ),
        (("--algo.hidden", "64", "0"), "hidden=0 must be"),
        (("--num-seeds", "0"), "num_seeds=0 must lie in [1, 65536]; try 1."),
        (("--seed", "-1"), "seed=-1 must be at least 0; try 0."),
        (("--seed", "4294967296"), "seed=4294967296 plus num_seeds must be at most 2^32; try 0."),
        (("--log-every", "-1"), "log_every=-1 must be"),
        (("--checkpoint-every", "0"), "checkpoint_every=0.0 must be a finite number above 0; try"),
        (("--checkpoint-every", "nan"), "checkpoint_every=nan must be a finite number in 32 bits"),
        (("--eval-episodes", "0"), "eval_episodes=0 must be at least 1; try 128."),
        (("--eval-episodes", "1000000000000"), "eval_episodes=1000000000000 is too large for an"),
        (("--num-seeds", "2147483647"), "num_seeds=2147483647 must lie in [1, 65536]; try 1."),
        (("--num-envs", "2147483648"), "num_envs=2147483648 is too large for an int32; try 16."),
        (
            ("--num-envs", "16777216"),
            "num_envs*num_steps=2147483648 must lie in [1, 2147483647]; try num_envs=16 with num_",
        ),
        (
            ("--total-steps", "9223372036854775808"),
            "total_steps=9223372036854775808 is more than 2147483647 iterations of num_envs*num_s",
        ),
        (("--total-steps", "1" + 30 * "0"), "try 4398046509056."),
        (("--total-steps", "1e6"), "--algo.total-steps: invalid literal for int()"),
        (("--algo.learning-rate", "1e39"), "learning_rate=1e+39 must be a finite number in 32"),
        (("--algo.learning-rate", "1e-60"), "learning_rate=1e-60 must be a finite number in 32"),
        *(
            (
                (HOST, host, "--hosts.num-processes", "2", "--hosts.process-id", "0"),
                f"hosts.coordinator={host} must be HOST:PORT with a port from 1 to 65535; try 10.0",
            )
            for host in ("junk", "", ":1234", "a:", "a:99999", "a:0", "a:-1", "a:\u0663")
        ),
        (
            ("--hosts.coordinator", "10.0.0.1:1234"),
            "num_processes=None and process_id=None go together",
        ),
        (("--algo.num-envs", "nan"), "--algo.num-envs: invalid literal for int()"),
        (("--algo.lr-schedule", "cosine"), "Expected one of ('linear', 'constant')"),
        (("--algo.gama", "1"), "options: --algo.gama, 1; Perhaps you meant: --algo.gamma"),
        (("--algo.gamma",), "Missing value for argument '--algo.gamma'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(refused, tmp_path, argv, words):
    assert words in refused(*argv, "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


KINDS = ppo.ppo.Config.__annotations__
FLOATS = [name for name, kind in KINDS.items() if kind in (float, float | None)]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize("name", FLOATS)
def test_no_hyperparameter_is_negative_nan_or_infinite(refused, tmp_path, name, value):
    said = refused("--algo." + name.replace("_", "-"), value, "--run-dir", tmp_path / "run")
    assert f"{name}={float(value)} must" in said and "; try " in said
    assert not math.isfinite(float(value)) or float(value) < 0
    assert not (tmp_path / "run").exists()


def test_an_extra_that_is_not_installed_is_asked_for_before_anything_runs(
    refused, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install 'jaxrl[wandb]'" in refused("--wandb", "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sizes_are_checked_together_whatever_flag_they_come_from(tmp_path):
    """12 environments x 8 steps divide by 6; the default 16 environments would not."""
    argv = ["--num-envs", "12", "--algo.num-steps", "8", "--algo.num-minibatches", "6"]
    cfg = flags.parse(ppo.TRAINER, flags.full_names(argv)).algo
    assert (cfg.num_envs, cfg.num_minibatches) == (12, 6)


def test_a_run_folder_that_exists_is_left_as_it_is(refused, run_dir):
    before = contents(run_dir)
    said = refused(*CORRIDOR, "--run-dir", run_dir)
    assert f"run_dir={run_dir} exists; try another name, or --resume {run_dir}" in said
    assert contents(run_dir) == before


def test_a_file_or_a_folder_of_something_else_is_no_place_for_a_run(refused, tmp_path):
    file = tmp_path / "thesis.tex"
    file.write_text("the only copy")
    assert f"run_dir={file} is a file; give a new folder" in refused("--run-dir", file)
    assert f"run_dir={tmp_path} exists" in refused("--run-dir", tmp_path)
    assert "cannot be made: not a directory" in refused("--run-dir", file / "run")
    assert contents(tmp_path) == {str(file): b"the only copy"}


@pytest.mark.parametrize(
    ("argv", "difference"),
    [
        (("--algo.gamma", "0.9"), "algo.gamma: 0.99 -> 0.9"),
        (("--num-envs", "32"), "algo.num_envs: 16 -> 32"),
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--num-seeds", "2"), "num_seeds: 1 -> 2"),
        (("--env", "CartPole-v1"), "env: SimpleCorridor-v0 -> CartPole-v1"),
        (("--env-args", "length=9"), "env_args: [] -> ['length=9']"),
        (("--log-every", "5"), "log_every: 0 -> 5"),
        (("--seed", "1", "--algo.hidden", "8"), "(algo.hidden: [64, 64] -> [8]; seed: 0 -> 1)"),
    ],
)
def test_a_resume_with_other_options_says_which(refused, run_dir, argv, difference):
    before = contents(run_dir)
    said = refused("--resume", run_dir, *argv)
    assert difference in said and "--run-dir" in said
    assert contents(run_dir) == before


def test_a_resume_in_another_folder_is_refused(refused, run_dir):
    said = refused("--resume", run_dir, "--run-dir", run_dir.parent / "other")
    assert f"resume={run_dir}" in said and "leave --run-dir out" in said


def test_a_folder_that_is_no_run_cannot_be_resumed(refused, tmp_path):
    assert f"{tmp_path} holds no config.json" in refused("--resume", tmp_path)
    nothing = tmp_path / "nothing"
    assert f"resume={nothing} is not there; give a folder" in refused("--resume", nothing)
    assert contents(tmp_path) == {} and not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"options": {"env', '{"options": {"envy": "x"}}'])
def test_a_damaged_config_is_refused(refused, run_dir, damage):
    (run_dir / "config.json").write_text(damage)
    before = contents(run_dir)
    assert "config.json" in refused("--resume", run_dir)
    assert contents(run_dir) == before


def test_any_file_of_a_checkpoint_cut_in_half_is_found_and_an_older_one_named(refused, run_dir):
    newest = run_dir / "checkpoints/2"
    files = [p for p in sorted(newest.rglob("*")) if p.is_file()]
    assert len(files) > 8
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        before = contents(run_dir)
        said = refused("--resume", run_dir)
        assert f"checkpoint {newest} is damaged: {file.relative_to(newest)} is" in said
        assert said.endswith("delete that folder to resume from iteration 1.\n")
        assert contents(run_dir) == before
        file.write_bytes(whole)


def test_a_flipped_bit_and_a_lost_file_of_a_checkpoint_are_found(refused, run_dir):
    newest = run_dir / "checkpoints/2"
    file = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "is not what was written" in refused("--resume", run_dir)
    file.unlink()
    assert "is missing" in refused("--resume", run_dir)


def test_a_run_that_cannot_go_on_does_not_grow(refused, run_dir):
    (file,) = (run_dir / "checkpoints/2").glob("_CHECKPOINT_METADATA")
    file.write_bytes(b"")
    before = contents(run_dir)
    assert "is damaged" in refused("--resume", run_dir, "--total-steps", "900000")
    assert contents(run_dir) == before


def test_following_the_advice_after_damage_leads_to_the_older_checkpoint(run_dir):
    shutil.rmtree(run_dir / "checkpoints/2")
    older = Checkpoints(run_dir / "checkpoints")
    assert older.iterations() == [1]
    restored = older.restore(1, abstract(STATE))
    older.close()
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("differs"), restored, STATE)


def test_a_checkpoint_of_another_environment_is_refused_even_if_its_shapes_fit(refused, run_dir):
    shutil.rmtree(run_dir / "checkpoints")
    save_checkpoints(run_dir, "GridWorld-v0")
    before = contents(run_dir)
    said = refused("--resume", run_dir)
    assert f"checkpoint {run_dir}/checkpoints/2 is of another run" in said
    assert "its env is GridWorld-v0, not SimpleCorridor-v0" in said
    assert contents(run_dir) == before


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"weight": jnp.zeros(998)}, r"\['weight'\] is float32\[999\], not float32\[998\]"),
        ({"weight": jnp.zeros(999, jnp.int32)}, r"\['weight'\] is float32\[999\], not int32"),
        ({"bias": jnp.zeros(3)}, r"\['bias'\] is only in the program"),
    ],
)
def test_a_checkpoint_of_another_program_says_which_array_differs(run_dir, wanted, words):
    saved = Checkpoints(run_dir / "checkpoints")
    with pytest.raises(ValueError, match=words):
        saved.restore(2, abstract(STATE | wanted))
    saved.close()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--run", "nowhere"), "run=nowhere is not there; give a folder"),
        (("--run", ".", "--episodes", "-1"), "episodes=-1 must lie in [0, 2147483647]; try 128"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(capfd, argv, words):
    with pytest.raises(SystemExit) as stop:
        evaluate.run(list(argv))
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "") and words in err and err.count("\n") == 1


def test_an_unfinished_run_cannot_be_evaluated(capfd, run_dir):
    with pytest.raises(SystemExit) as stop:
        evaluate.run(["--run", str(run_dir)])
    assert stop.value.code == 2 and "give a finished run's folder" in capfd.readouterr().err


def test_the_options_of_a_run_survive_the_way_through_its_config(run_dir):
    config = json.loads((run_dir / "config.json").read_text())
    args = flags.parse(ppo.TRAINER, ["--resume", str(run_dir)])
    assert args.algo == ppo.ppo.Config() and args.env == config["options"]["env"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_the_parser_refuses_is_said_in_one_line_whatever_the_terminal_can_show(
    monkeypatch, encoding
):
    with TextIOWrapper(BytesIO(), encoding) as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        with pytest.raises(ValueError, match=r"^Unrecognized options: --algo.gama, 1; Perhaps you"):
            flags.parse(ppo.TRAINER, ["--algo.gama", "1"])
        with pytest.raises(ValueError, match=r"Expected one of \('linear', 'constant'\)"):
            flags.parse(ppo.TRAINER, ["--algo.lr-schedule", "cosine"])


@pytest.mark.parametrize(
    ("argv", "difference"),
    [
        (("--total-steps", "1000"), "(algo.total_steps: 500000 -> 1000)"),
        (("--total-steps", "900000", "--seed", "1"), "(seed: 0 -> 1)"),
        (("--init-from", "/"), "(init_from: None -> /)"),
    ],
)
def test_a_run_may_grow_but_not_shrink_nor_change_otherwise(
    refused, run_dir, monkeypatch, argv, difference
):
    monkeypatch.setattr("jaxrl.train.arrays.load_policy", lambda folder: None)
    before = contents(run_dir)
    said = refused("--resume", run_dir, *argv)
    assert difference in said and said.endswith("algo.total_steps may grow.\n")
    assert contents(run_dir) == before


def test_of_an_option_given_twice_the_last_counts_for_every_reader():
    argv = ["--seed", "1", "--env", "grid/x", "--num-envs", "8", *CORRIDOR]
    argv = flags.full_names([*argv, "--seed=2", "--algo.num-envs", "16"])
    args = flags.parse(ppo.TRAINER, argv)
    assert (args.seed, args.env, args.algo.num_envs) == (2, CORRIDOR[1], 16)
    assert flags.flag_value(argv, "--env") == CORRIDOR[1]
    assert command.choose("ppo", ["--env", "language/GuessTheNumber-easy", *CORRIDOR]).name == "ppo"
