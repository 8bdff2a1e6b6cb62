"""`jaxrl.train(...)`: runs from Python, with environments and networks of one's own."""

import importlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import envs
from jaxrl.networks import ActorCritic
from jaxrl.train import loop
from jaxrl.wrappers import TimeLimit

SMALL = {
    "num_seeds": 2,
    "total_steps": 256,
    "num_envs": 4,
    "num_steps": 16,
    "hidden": (8,),
    "eval_episodes": 4,
    "devices": 1,
    "quiet": True,
}


class Wide(ActorCritic):
    """A network of one's own."""


@pytest.fixture(scope="module")
def whole():
    """A run that keeps nothing, in an environment and with a network that were given as they are.

    A chunk is one iteration, so that it can be stopped anywhere.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "MAX_CHUNK", 1)
        yield jaxrl.train("ppo", env=tank(), network=Wide, eval_every=2, **SMALL)


def tank(gravity: float = 5.0):
    return TimeLimit(envs.make("CartPole-v1", gravity=gravity, max_steps=None), 30)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_the_package_can_be_called_and_is_still_a_package():
    package: Any = importlib.import_module("train")
    assert package is sys.modules["jaxrl.train"] is jaxrl.train and package.loop is loop
    assert callable(package)


def test_a_run_gives_its_policies_and_metrics(whole):
    assert whole.run_dir is None
    steps, returns = whole.curve
    assert list(steps) == [64, 128, 192, 256] and returns.shape == (4, 2)
    assert whole.policy(jnp.zeros(4)).shape == () and "final return" in repr(whole)
    assert whole.summary["final_return"]["metrics"]["episode_length"]["mean"] <= 30
    assert np.isnan(whole.metrics["eval_return"][[0, 2]]).all()
    assert np.isfinite(whole.metrics["eval_return"][[1, 3]]).all()


def test_a_callback_stops_a_run_which_then_goes_on_to_the_same_end(whole, tmp_path):
    heard = []

    def callback(chunk):
        heard.append((chunk.iteration, chunk.played, chunk.metrics["loss"].shape))
        return chunk.iteration == 1

    options = SMALL | {"env": tank(), "network": Wide, "eval_every": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "MAX_CHUNK", 1)
        folder = tmp_path / "run"
        half = jaxrl.train("ppo", run_dir=folder, callback=callback, **options)
        assert half.run_dir == folder
        assert heard == [(1, 64, (2,)), (2, 128, (2,))]
        assert half.summary["stopped_at"] == 2 and half.summary["env_steps"] == 128
        assert (folder / "policy" / "policy.json").exists()
        with pytest.raises(ValueError, match=r"env: given/.* -> given/"):
            jaxrl.train("ppo", resume=folder, env=tank(6.0))
        end = jaxrl.train("ppo", resume=folder, env=tank(), quiet=True)
    for name in whole.metrics:
        np.testing.assert_array_equal(end.metrics[name], whole.metrics[name])
    for x, y in zip(leaves(end.policies), leaves(whole.policies), strict=True):
        np.testing.assert_array_equal(x, y)
    final, wanted = (run.summary["final_return"] for run in (end, whole))
    assert final == wanted and "stopped_at" not in end.summary
    best = jaxrl.load_policy(folder / "policy_best", 1)
    assert best.spec.network == f"{Wide.__module__}:Wide"
    scores = np.nan_to_num(whole.metrics["eval_return"], nan=-1)
    assert final["best"]["iteration"] == list(np.argmax(scores, 0) + 1)
    if final["best"]["iteration"][1] == 4:  # the last one is the best one
        last = jaxrl.load_policy(folder, 1)
        assert all(map(np.array_equal, leaves(best), leaves(last)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rte": 1}, "no option learning_rte; near: learning_rate"),
        ({"env": 5}, "env=5 must be an id, an Environment, or a class of Gymnasium"),
        ({"env": "CartPole"}, "No environment 'CartPole'"),
        ({"num_seeds": 0}, "num_seeds=0 must lie in"),
        ({"hidden": 8}, "hidden=8 must be a tuple"),
        ({"network": int}, "network=builtins:int cannot be made: TypeError"),
        ({"eval_every": 999}, "eval_every=999 is more than the run's 245 iterations; try 24"),
        ({"preset": "x"}, "preset=x is none of train.ppo"),
        ({"resume": "nowhere"}, "resume=nowhere is not there"),
        ({"init_from": "nowhere"}, "init_from=nowhere is not there"),
        ({"env": tank(), "env_args": ("gravity=3",)}, "cannot be made"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(options, words):
    with pytest.raises(ValueError, match=words) as error:
        jaxrl.train("ppo", quiet=True, **options)
    assert "\n" not in str(error.value)


def test_an_object_has_an_id_that_only_its_equals_share():
    one, same, other = envs.given(tank()), envs.given(tank()), envs.given(tank(9.0))
    assert one == same != other and one not in envs.ids()
    assert envs.make(one) == tank()
    with pytest.raises(ValueError, match="was given as an object in Python"):
        envs.spec("given/Tank-12345678")


def test_a_network_whose_module_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "half_done.py").write_text("import math\nmath.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"half_done cannot be imported: AttributeError.*line 2"):
        jaxrl.train("ppo", network="half_done:Net", quiet=True)
