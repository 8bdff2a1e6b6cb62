"""TD3's targets, exploration and delay, DDPG, and what they learn."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from reals import PROBES, Drift, Probe, StubCritics, learned

from jaxrl.algos import td3
from jaxrl.networks.critics import each_q
from jaxrl.off_policy import Row
from jaxrl.wrappers import TimeLimit
from train import loop
from train import td3 as trainer

CFG = td3.Config(num_envs=4, num_steps=2, batch_size=4, hidden=(8,), gamma=0.5)
COLUMN = lambda *x: np.float32(x)[:, None]  # noqa: E731
ACTOR = SimpleNamespace(action=lambda obs: obs[..., :1])


def test_the_target_is_the_smaller_next_value_of_a_noisy_action_within_bounds():
    obs, over = COLUMN(0.0, 0.9, -0.5, 0.5), np.array([False, False, False, True])
    rows = Row(None, None, np.float32([1, 2, 3, 4]), obs, over)
    noise = COLUMN(1.0, 1.0, -9.0, 1.0)  # times 0.2, and at most 0.5; then the action at most 1
    both = td3.Networks(ACTOR, StubCritics(np.float32([1.0, 2.0])))
    found = td3.target(both, rows, noise, CFG)
    led = obs[:, 0] + np.array([0.2, 1.0, -1.0, 0.7])
    smaller = np.minimum(led, 2 * led)
    np.testing.assert_allclose(found, [*([1, 2, 3] + 0.5 * smaller[:3]), 4], rtol=1e-6)


def test_ddpg_is_one_critic_that_is_followed_at_every_step_and_asked_without_noise():
    ddpg = trainer.PRESETS["ddpg"]
    assert (ddpg.num_critics, ddpg.policy_delay) == (1, 1)
    rows = Row(None, None, np.float32([1.0]), COLUMN(0.5), np.array([False]))
    both = td3.Networks(ACTOR, StubCritics(np.float32([2.0])))
    found = td3.target(both, rows, COLUMN(3.0), ddpg)
    np.testing.assert_allclose(found, [1 + 0.99 * 2 * (0.5 + 0.5)], rtol=1e-6)


def test_actions_are_uniform_at_first_and_then_the_actors_with_noise_within_bounds():
    obs = np.full((4000, 1), 0.95, np.float32)
    noise = np.float32(np.random.default_rng(0).normal(size=(4000, 1)))
    learner = SimpleNamespace(networks=td3.Networks(ACTOR, None))
    act = jit(lambda warm: td3.act(learner, warm, (), obs, noise, std=0.1)[1].action)
    at_first, later = act(False), act(True)
    share = np.histogram(at_first, 10, (-1.0, 1.0))[0] / 4000
    np.testing.assert_allclose(share, 0.1, atol=0.02)
    np.testing.assert_allclose(later, np.clip(0.95 + 0.1 * noise, -1, 1), rtol=1e-6)


@pytest.fixture(scope="module")
def steps():
    """The learner before and after each of four gradient steps with a policy_delay of 2."""
    env = td3.wrap(Drift(), CFG)
    learners = [jit(partial(td3.init, cfg=CFG, env=env))(jax.random.key(0)).learner]
    rng = np.random.default_rng(0)
    obs, next_obs = np.float32(rng.normal(size=(2, 8, 2)))
    action = np.float32(rng.uniform(-1, 1, (8, 1)))
    rows = Row(obs, action, np.ones(8, np.float32), next_obs, np.zeros(8, bool))
    step = jit(partial(td3.gradient_step, cfg=CFG, axis=None))
    log = []
    for _ in range(4):
        learner, now = step(learners[-1], (rows, np.zeros((8, 1), np.float32)))
        learners.append(learner)
        log.append(now)
    return learners, log, rows


def moved(steps, part):
    """Whether each step changed a part of the learner."""
    leaves = [jax.tree.leaves(part(learner)) for learner in steps[0]]
    return [any(np.any(x != y) for x, y in zip(*two, strict=True)) for two in pairwise(leaves)]


def test_the_actor_and_all_targets_move_at_every_second_step_of_the_critics(steps):
    assert moved(steps, lambda x: x.networks.critics) == [True] * 4
    assert moved(steps, lambda x: x.networks.actor) == [False, True, False, True]
    assert moved(steps, lambda x: x.opt_states.actor) == [False, True, False, True]
    assert moved(steps, lambda x: x.targets) == [False, True, False, True]
    assert [float(now["actor_loss"].denominator) for now in steps[1]] == [0, 8, 0, 8]


def test_the_actor_climbs_the_first_critic_as_it_is_after_its_step(steps):
    learners, log, rows = steps
    before, after = learners[1].networks, learners[2].networks
    q = lambda actor: jnp.mean(each_q(after.critics, (rows.obs, actor.action(rows.obs)))[0])  # noqa: E731
    was, now = jit(lambda a, b: (q(a), q(b)))(before.actor, after.actor)
    np.testing.assert_allclose(-log[1]["actor_loss"].numerator / 8, was, rtol=1e-4, atol=1e-6)
    assert now > was


PROBE = td3.Config(
    num_envs=8,
    num_steps=8,
    total_steps=64 * 150,
    batch_size=64,
    learning_starts=100,
    learning_rate=0.01,
    gamma=0.9,
    tau=0.05,
    hidden=(16,),
    reset_pool=8,
)


def test_it_copies_the_observation_and_a_reward_for_ever_is_worth_1_over_1_minus_gamma():
    obs = np.float32([[-1.0], [1.0]])

    def read(state):
        networks = state.learner.networks
        return 2 * networks.actor.action(obs)[:, 0], each_q(networks.critics, (obs, 0 * obs))

    probes = [TimeLimit(Probe(jnp.int32(i)), 5) for i in range(len(PROBES))]
    target, forever = learned(td3, PROBE, probes, read)
    np.testing.assert_allclose(target[0], [-1, 1], atol=0.15)
    np.testing.assert_allclose(forever[1][:, 1], [10, 10], rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "ddpg"])
def test_td3_swings_a_pendulum_up_in_20000_steps(preset, tmp_path):
    algo = trainer.PRESETS[preset]
    args = trainer.Args(num_seeds=5, run_dir=tmp_path / "run", preset=preset, algo=algo)
    assert (args.env, args.algo.total_steps) == ("Pendulum-v1", 20_000)
    summary = loop.train(args, trainer.setup(args))
    assert np.median(summary["final_return"]["per_seed"]) >= -180
