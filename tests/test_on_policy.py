"""What A2C, TRPO and GRPO for arrays owe alike: one program, devices, metrics, and learning."""

from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_of import one_of
from quick import jit
from walk import Walk

from envs.probe import value
from jaxrl import metrics
from jaxrl.algos import a2c, grpo_arrays, trpo
from jaxrl.mesh import make_mesh
from jaxrl.program import make_program, members, seed_keys
from jaxrl.spaces import Discrete
from jaxrl.wrappers import TimeLimit
from train import a2c as of_a2c
from train import loop
from train import trpo as of_trpo

SIZES: dict[str, Any] = {"num_envs": 8, "num_steps": 4, "total_steps": 32 * 8, "hidden": (8,)}
GROUPS = SIZES | {"num_envs": 16, "group_size": 2, "num_minibatches": 2, "num_epochs": 1}
ALGORITHMS: dict[str, tuple[ModuleType, Any]] = {
    "a2c": (a2c, a2c.Config(**SIZES, normalize_obs=True, normalize_reward=True, learning_rate=0.1)),
    "trpo": (trpo, trpo.Config(**SIZES, normalize_obs=True, num_epochs=1, num_minibatches=2)),
    "grpo_arrays": (grpo_arrays, grpo_arrays.Config(**GROUPS, normalize_obs=True)),
}
ENV = TimeLimit(Walk(), 6)


def differences(a, b):
    """Every absolute difference between two trees' numbers, as one array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])


class Run(flax.struct.PyTreeNode):
    algorithm: ModuleType
    cfg: Any
    states: list  # before and after each of 3 updates
    log: list  # the metrics of each
    update: Any  # the program


@pytest.fixture(scope="module", params=ALGORITHMS)
def run(request):
    algorithm, cfg = ALGORITHMS[request.param]
    env = algorithm.wrap(ENV, cfg)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(algorithm.init, cfg=cfg, env=env))(init_key)], []
    update = jit(lambda state, key, cfg: algorithm.update(state, key, cfg=cfg, env=env))
    on_device = jax.device_put(jax.tree.map(np.float32, cfg))
    for key in [jax.random.fold_in(train_key, i) for i in range(3)]:
        with jax.transfer_guard("disallow"):
            state, now = update(states[-1], key, on_device)
        states.append(state)
        log.append(now)
    return Run(algorithm, cfg, states, log, update)


def test_updates_move_the_policy_count_themselves_and_play_on(run):
    assert [int(s.iteration) for s in run.states] == [0, 1, 2, 3]
    obs = np.stack([s.carry.obs for s in run.states])
    assert len(np.unique(obs)) == obs.size
    for before, after in pairwise(run.states):
        assert np.max(differences(before.policy.actor, after.policy.actor)) > 1e-4
        assert np.max(differences(before.obs_stats, after.obs_stats)) > 1e-3


def test_the_critic_learns_where_there_is_one(run):
    moved = np.max(differences(run.states[0].policy.critic, run.states[1].policy.critic))
    assert (moved == 0) == (run.algorithm is grpo_arrays) and (moved == 0 or moved > 1e-4)


def test_every_metric_is_a_finite_float32_sum_and_the_first_ratio_is_1(run):
    for now in run.log:
        for name, sums in now.items():
            for x in sums:
                assert x.shape == () and x.dtype == jnp.float32 and np.isfinite(x), name
        if run.algorithm is not a2c:  # which has no ratio
            assert metrics.quotient(now["first_ratio_error"]) < 1e-6
    assert {"loss", "entropy", "episode_return", "x"} <= run.log[0].keys()


def test_every_float_of_the_options_is_a_number_of_the_one_program(run):
    floats = {name: x / 2 for name, x in vars(run.cfg).items() if isinstance(x, float)}
    assert len(floats) == len(jax.tree.leaves(run.cfg))
    other = type(run.cfg)(**(vars(run.cfg) | floats))
    other = jax.device_put(jax.tree.map(jnp.float32, other))
    after, _ = run.update(run.states[0], jax.random.fold_in(seed_keys(0)[1], 0), other)
    assert run.update._cache_size() == 1
    assert np.max(differences(after.policy.actor, run.states[1].policy.actor)) > 1e-4


def test_eight_devices_play_the_first_rollout_of_one_and_learn_the_same(run):
    def init(key, member, *, axis):
        env = run.algorithm.wrap(member.env, member.cfg)
        return run.algorithm.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, *, axis):
        env = run.algorithm.wrap(member.env, member.cfg)
        return run.algorithm.update(state, key, cfg=member.cfg, env=env, axis=axis)

    mesh = make_mesh(1, jax.devices()[:8])
    assert mesh.shape["data"] == 8 and run.cfg.num_blocks == 8
    program = make_program(init, update, run.algorithm.layout(), mesh, max_count=1)
    member = program.place(members([0], run.cfg, ENV))
    state, log = program.run(program.init(member), member, program.scalar(1))
    one, now = run.states[1], run.log[0]
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), state.carry, one.carry)
    assert np.max(differences(state.policy, jax.tree.map(lambda x: x[None], one.policy))) < 1e-5
    for name, (total, count) in now.items():
        totals, counts = (x[0, 0] for x in log[name])
        np.testing.assert_allclose(counts, count, rtol=1e-3, err_msg=name)
        # Of a mean: TRPO's loss, whose advantages are whitened, is a sum of 32 that is 0.
        np.testing.assert_allclose(
            totals / max(count, 1), total / max(count, 1), rtol=1e-3, atol=1e-6, err_msg=name
        )


PROBES = (value.ActionObsReward(), value.TwoStepDiscount(), value.Forever())
LEARN: dict[str, Any] = {"num_envs": 8, "hidden": (16,), "gamma": 0.9, "reset_pool": 8}
LEARNERS: dict[str, Any] = {
    "a2c": a2c.Config(**LEARN, total_steps=40 * 500, optimizer="adam", learning_rate=0.02),
    "trpo": trpo.Config(
        **LEARN, num_steps=8, total_steps=64 * 100, num_minibatches=4, learning_rate=0.01
    ),
    "grpo_arrays": grpo_arrays.Config(
        **(LEARN | GROUPS | {"hidden": (16,), "num_steps": 8, "total_steps": 128 * 60}),
        learning_rate=0.01,
    ),
}


OneOf = one_of(PROBES, Discrete(2))


@pytest.mark.parametrize("name", LEARNERS)
def test_what_pays_is_done_and_what_is_to_come_is_worth_what_paper_says(name):
    """For ever 1 is worth 1 / (1 - gamma) however short the clock; a step later, gamma."""
    algorithm, cfg = ALGORITHMS[name][0], LEARNERS[name]

    def learn(inputs):
        index, key = inputs
        env = algorithm.wrap(TimeLimit(OneOf(index), 5), cfg)
        init_key, key = jax.random.split(key)
        state = algorithm.init(init_key, cfg=cfg, env=env)
        keys = jax.random.split(key, cfg.num_iterations)
        state, _ = jax.lax.scan(partial(algorithm.update, cfg=cfg, env=env), state, keys)
        obs = np.float32([[-1.0], [0.0], [1.0]])
        return state.policy.value(obs), jax.nn.softmax(state.policy.distribution(obs).logits)[:, 1]

    inputs = np.arange(len(PROBES)), jax.random.split(jax.random.key(0), len(PROBES))
    worth, chosen = (np.asarray(x) for x in jit(partial(jax.lax.map, learn))(inputs))
    assert chosen[0, 0] < 0.05 and chosen[0, 2] > 0.95
    if algorithm is not grpo_arrays:
        np.testing.assert_allclose(worth[1, 1:], [0.9, 1.0], atol=0.05)
        np.testing.assert_allclose(worth[2, 2], 10.0, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "seconds"), [(of_a2c, 60), (of_trpo, 600)])
def test_default_options_solve_cartpole_in_half_a_million_steps(trainer, seconds, tmp_path):
    args = trainer.Args(num_seeds=5, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_steps) == ("CartPole-v1", 500_000)
    summary = loop.train(args, trainer.setup(args))
    assert len(summary["final_return"]["per_seed"]) == 5
    assert min(summary["final_return"]["per_seed"]) >= 475
    assert summary["run_s"] < seconds
