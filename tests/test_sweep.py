"""Sweeps: what is tried, what is refused, and what a run of many configurations leaves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.metrics import Sums
from jaxrl.train import command, flags, loop, ppo, pqn, sweep, swept
from jaxrl.train.run_folder import RunFolder

SMALL = {
    "env": "CartPole-v1",
    "num_seeds": 2,
    "total_steps": 256,
    "num_envs": 4,
    "num_steps": 16,
    "hidden": (8,),
    "eval_episodes": 4,
    "devices": 1,
    "quiet": True,
}
TEXTS = ("algo.learning-rate=1e-3,1e-2", "env.gravity=8,12")


@pytest.fixture
def refused(monkeypatch, capfd):
    """What is said of a command line that must be refused before anything is traced."""

    def never(*args, **kwargs):
        raise AssertionError("a program was made")

    monkeypatch.setattr(loop, "make_program", never)

    def run(*argv: object, trainer: str | None = None) -> str:
        words = [str(word) for word in argv]
        with pytest.raises(SystemExit) as stop:
            sweep.run(words) if trainer is None else command.run(trainer, words)
        out, err = capfd.readouterr()
        assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
        return err

    return run


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), ("sweep= must name numbers",)),
        (("--sweep",), ("sweep= must name numbers",)),
        (("--sweep", "algo.num-envs=8,16"), ("compiled 2 times", "--algo.num-envs $x; done")),
        (("--sweep", "algo.activation=tanh,relu"), ("activation shapes", "for x in tanh relu")),
        (
            ("--env", "GridWorld-v0", "--sweep", "env.size=5,7,9"),
            ("compiled 3 times", "--env GridWorld-v0 --env-args size=$x; done"),
        ),
        (("--sweep", "algo.value-clip=0.1,0.2"), ("value_clip is off", "--algo.value-clip")),
        (("--sweep", "algo.gamme=0.9"), ("no option algo.gamme", "near: gamma")),
        (("--sweep", "env.gravty=8"), ("no field 'gravty'", "near: gravity")),
        (("--sweep", "env.gravity=-1e9"), ("gravity=", "must be a number from")),
        (("--sweep", "algo.gamma=0.9,1.5"), ("gamma=1.5 must lie in [0.0, 1.0]",)),
        (("--sweep", "algo.gamma=0.9,x"), ("x is no finite number",)),
        (("--sweep", "algo.gamma="), ("'' is no finite number",)),
        (("--sweep", "algo.gamma=0.9,0.9"), ("has a value twice",)),
        (("--sweep", "algo.gamma=0.9", "--sweep", "algo.gamma=0.8"), ("a second time",)),
        (("--sweep", "seed=1,2"), ("sweep=seed=1,2 must be algo.NAME=VALUES",)),
        (("--sweep", "algo.gamma=lin:0.9:0.99"), ("a range to draw from; try --samples 32",)),
        (("--sweep", "algo.gamma=log:0:1", "--samples", 3), ("numbers above 0",)),
        (("--sweep", "algo.gamma=lin:1:0", "--samples", 3), ("the lower one first",)),
        (("--sweep", "algo.gamma=0.9", "--samples", -1), ("samples=-1",)),
        (("--sweep", "algo.gamma=lin:0:1", "--samples", 99999), ("there can be 65536",)),
        (("--trainer", "nope", "--sweep", "algo.gamma=0.9"), ("trainer=nope is none",)),
    ],
)
def test_a_sweep_that_cannot_be_one_program_is_refused(refused, tmp_path, argv, words):
    said = refused(*argv, "--run-dir", tmp_path / "run")
    for word in words:
        assert word in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"envy": 1}, ("envy", "does not know")),
        ({"algo": {"gama": 1}}, ("algo has the field gama",)),
        ({"algo": {"gamma": "x"}}, ("algo.gamma", "must be a number")),
        ({"algo": {"gamma": 2.0}}, ("gamma=2.0 must lie in",)),
        ({"preset": "no"}, ("preset=no is none of train.ppo",)),
        ({"resume": "x"}, ("has the field resume; give --resume itself",)),
        ({"trainer": "pqn", "options": {}}, ("made by train.pqn; try python -m train.pqn",)),
        ([1], ("must be an object",)),
    ],
)
def test_a_file_of_options_that_does_not_fit_is_refused(refused, tmp_path, content, words):
    file = tmp_path / "options.json"
    file.write_text(json.dumps(content))
    said = refused("--config", file, "--run-dir", tmp_path / "run", trainer="ppo")
    for word in (str(file), *words):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_the_command_line_wins_over_the_file_and_the_file_over_its_preset(tmp_path):
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"preset": "minatar", "seed": 3, "algo": {"gamma": 0.5}}))
    argv = ["--config", str(file), "--algo.gae-lambda", "0.7", "--seed", "4"]
    args = flags.parse(ppo.TRAINER, argv)
    assert (args.seed, args.algo.gamma, args.algo.gae_lambda) == (4, 0.5, 0.7)
    assert args.algo.learning_rate == ppo.PRESETS["minatar"].learning_rate
    assert flags.parse(pqn.TRAINER, ["--config", str(file), "--preset", "default"]).seed == 3


def test_a_grid_has_every_pair_and_its_first_name_is_the_slowest():
    args = ppo.Args(sweep=("algo.gamma=0.9,0.99", "env.gravity=8,9,10"))
    pairs = [tuple(values.values()) for values in swept.configurations(args)]
    assert pairs == [(0.9, 8), (0.9, 9), (0.9, 10), (0.99, 8), (0.99, 9), (0.99, 10)]
    assert args.num_members == 6


def test_draws_lie_in_their_range_and_depend_on_seed_number_and_name_alone():
    rate, lam = "algo.learning-rate=log:1e-5:1e-1", "algo.gae-lambda=lin:0.5:1"

    def drawn(*texts, samples=400, seed=0):
        return swept.configurations(ppo.Args(sweep=texts, samples=samples, seed=seed))

    both = drawn(rate, lam)
    rates = np.array([values["algo.learning_rate"] for values in both])
    assert 1e-5 <= rates.min() < 3e-5 and 3e-2 < rates.max() <= 1e-1
    assert 3e-4 < np.median(rates) < 3e-3  # 1e-3 is the middle of the logarithms
    lams = np.array([values["algo.gae_lambda"] for values in both])
    assert 0.72 < lams.mean() < 0.78 and abs(np.corrcoef(np.log(rates), lams)[0, 1]) < 0.15
    assert [x["algo.learning_rate"] for x in drawn(rate, samples=5)] == list(rates[:5])
    assert drawn(rate, samples=5, seed=1) != drawn(rate, samples=5)
    listed = [x["env.gravity"] for x in drawn("env.gravity=1,2,3")]
    assert all(100 < listed.count(value) < 170 for value in (1, 2, 3))


def test_a_configuration_that_diverges_is_told_and_the_others_go_on(tmp_path):
    nan, args = np.nan, ppo.Args(sweep=("algo.gamma=0.9,0.8",), num_seeds=2)
    ones, loss = jnp.ones((2, 4)), jnp.array([[1, 2, 3, 4], [1, nan, 3, 4]])
    known = swept.without_broken({"loss": Sums(loss, ones), "entropy": Sums(ones, ones)})
    for sums in known.values():
        np.testing.assert_array_equal(sums.denominator, [[1, 1, 1, 1], [1, 0, 1, 1]])
    assert np.isfinite(known["loss"].numerator).all()
    all_lost = {"loss": Sums(loss * nan, ones)}
    assert swept.without_broken(all_lost) is all_lost  # the run stops, as any that diverges
    weights = {"w": np.ones((4, 2)), "b": np.array([0, nan, 1, 1], np.float32)}
    trained, lost = swept.mended(weights)
    np.testing.assert_array_equal(lost, [False, True, False, False])
    np.testing.assert_array_equal(trained["b"], [0, 0, 1, 1])
    folder = RunFolder(tmp_path, writes=True)
    result = swept.write(folder, args, "ppo", [9.0, 9.0, 5.0, 6.0], lost)
    assert result["best"] == 1 and "diverged" in swept.table(result).splitlines()[2]
    saved = json.loads((tmp_path / "sweep.json").read_text())["configurations"]
    assert saved[0]["iqm"] is None and saved[0]["per_seed"] == [9.0, None]
    assert json.loads((tmp_path / "best.json").read_text())["options"]["algo"]["gamma"] == 0.8


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A sweep of 2 x 2 configurations and two seeds."""
    folder = tmp_path_factory.mktemp("sweep") / "run"
    return jaxrl.train("ppo", sweep=TEXTS, run_dir=folder, **SMALL)


def test_a_sweep_compares_its_configurations(found):
    result = json.loads((found.run_dir / "sweep.json").read_text())
    per_seed = found.summary["final_return"]["per_seed"]
    values = [(0.001, 8), (0.001, 12), (0.01, 8), (0.01, 12)]
    for i, row in enumerate(result["configurations"]):
        assert tuple(row["values"].values()) == values[i]
        assert row["per_seed"] == per_seed[2 * i : 2 * i + 2]
        assert row["iqm"] == pytest.approx(np.mean(row["per_seed"]))
        assert row["ci95"][0] <= row["iqm"] <= row["ci95"][1]
    scores = [row["iqm"] for row in result["configurations"]]
    assert result["best"] == np.argmax(scores)
    assert (found.run_dir / "sweep.png").read_bytes().startswith(b"\x89PNG")
    best = swept.table(result).splitlines()[1].split()
    assert float(best[3]) == pytest.approx(max(scores), abs=0.05)
    assert found.metrics["loss"].shape == (4, 8)
    assert found.metrics["learning_rate"][0, 0] == np.float32(1e-3)


def test_a_member_is_the_run_of_its_configuration_which_best_json_starts(found):
    """Up to the last digits: more members are another vectorisation."""
    args = flags.parse(ppo.TRAINER, ["--config", str(found.run_dir / "best.json")])
    best = json.loads((found.run_dir / "sweep.json").read_text())["best"]
    assert args.algo.learning_rate == (1e-3, 1e-3, 1e-2, 1e-2)[best]
    assert args.env_args == ("gravity=8" if best % 2 == 0 else "gravity=12",)
    assert (args.sweep, args.num_seeds, args.run_dir) == ((), 2, None)
    alone = jaxrl.train(
        "ppo", **SMALL | {"env_args": args.env_args, "learning_rate": args.algo.learning_rate}
    )
    start = 2 * best
    for x, y in zip(jax.tree.leaves(found.policies), jax.tree.leaves(alone.policies), strict=True):
        np.testing.assert_allclose(x[start : start + 2], y, rtol=1e-3, atol=1e-5)
    other = np.abs(found.metrics["loss"][-1][(start + 2) % 8] - alone.metrics["loss"][-1][0])
    assert other > 1e-3
