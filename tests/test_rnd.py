"""The example of docs/change-an-algorithm.md: RND pays for what is new, and PPO learns of it."""

import importlib.util
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.metrics import quotient
from jaxrl.program import seed_keys
from train import loop

FILE = Path(__file__).parent.parent / "docs" / "examples" / "ppo_rnd.py"


def load():
    spec = importlib.util.spec_from_file_location("ppo_rnd", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ppo_rnd"] = module
    spec.loader.exec_module(module)
    return module


rnd = load()
CORRIDOR = {"length": 8, "step_reward": 0.0}
BASE = rnd.Config(
    num_envs=4, num_steps=8, total_steps=32 * 8, num_minibatches=2, hidden=(8,), bonus_rate=0.01
)


@pytest.fixture(scope="module")
def base():
    """(states before and after each of 4 updates, their metrics)."""
    env = rnd.wrap(envs.make("SimpleCorridor-v0", **CORRIDOR), BASE)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(rnd.init, cfg=BASE, env=env))(init_key)], []
    update = jit(partial(rnd.update, cfg=BASE, env=env))
    for i in range(4):
        state, metrics = update(states[-1], jax.random.fold_in(train_key, i))
        states.append(state)
        log.append({name: float(quotient(x)) for name, x in metrics.items()})
    return states, log


def test_the_bonus_is_in_what_is_learnt_and_not_in_the_return(base):
    states, log = base
    for metrics in log:
        assert metrics["bonus"] > 0 and metrics["first_ratio_error"] < 1e-5
        assert metrics.get("episode_return", 0.0) in (0.0, 1.0)
    assert log[-1]["value"] > 0.05  # of the bonus alone
    assert [int(state.iteration) for state in states] == [0, 1, 2, 3, 4]


def test_what_was_often_seen_surprises_less_and_what_was_not_does_not(base):
    cell = jnp.arange(9)
    error = [
        np.asarray(jit(rnd.surprise)(state.predictor, cell, state.target)) for state in base[0]
    ]
    for before, after in pairwise(error):
        assert after[0] < before[0]
    assert error[-1][0] < 0.7 * error[0][0] and error[-1][8] > 0.8 * error[0][8]


def test_the_fixed_network_stays_and_the_policy_and_the_predictor_move(base):
    moved = lambda part: max(  # noqa: E731
        np.max(np.abs(a - b))
        for a, b in zip(
            jax.tree.leaves(part(base[0][0])), jax.tree.leaves(part(base[0][-1])), strict=True
        )
    )
    assert moved(lambda state: state.target) == 0
    assert moved(lambda state: state.predictor) > 1e-3
    assert moved(lambda state: state.ppo.policy) > 1e-3


def test_the_example_is_a_trainer_with_its_own_checked_options():
    task = rnd.setup(rnd.Args(env="SimpleCorridor-v0", algo=BASE))
    assert task.name == "ppo_rnd" and task.num_iterations == 8
    with pytest.raises(ValueError, match=r"bonus_coef=-1.0 must lie in"):
        rnd.Config(bonus_coef=-1.0)
    with pytest.raises(ValueError, match=r"num_minibatches=3 does not divide"):
        rnd.Config(num_minibatches=3)


@pytest.mark.slow
def test_rnd_finds_a_goal_that_a_random_walk_never_meets(tmp_path):
    args = rnd.Args(
        env="SimpleCorridor-v0",
        env_args=("length=50", "step_reward=0.0"),
        num_seeds=5,
        run_dir=tmp_path / "run",
    )
    found = loop.train(args, rnd.setup(args))["final_return"]["per_seed"]
    assert len(found) == 5 and min(found) > 0.9
