"""SAC's loss and its parts, for reals and for choices, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from reals import PROBES, Drift, Probe, Spec, StubCritics, learned

from envs.probe import value
from jaxrl.algos import sac
from jaxrl.distributions import Categorical, TanhGaussian
from jaxrl.networks.critics import each_q
from jaxrl.off_policy import Row
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import TimeLimit
from train import loop
from train import sac as trainer

CFG = sac.Config(num_envs=4, num_steps=2, batch_size=4, hidden=(8,), gamma=0.5)
H = 0.5 * np.log(2 * np.pi)  # -log density of a standard normal at 0, where tanh has slope 1


class StubActor:
    """A standard normal before tanh."""

    def distribution(self, obs):
        return TanhGaussian(jnp.zeros_like(obs), jnp.zeros_like(obs))


def rows(terminated=(False, True)):
    column = lambda *x: np.float32(x)[:, None]  # noqa: E731
    action, next_obs = column(0.0, 0.0), column(2.0, -1.0)
    return Row(column(1.0, 3.0), action, np.float32([1, 7]), next_obs, np.array(terminated))


def test_the_target_is_the_smaller_next_value_and_the_entropy_and_0_after_the_end():
    trained = sac.Trained(StubActor(), StubCritics(), jnp.log(0.25))
    batch, goal = (rows(), np.zeros((2, 2, 1), np.float32)), -1.0
    both = {"frozen": trained, "targets": StubCritics(np.float32([3.0, 1.0]))}
    total, parts = sac.loss(trained, batch, **both, cfg=CFG, goal=goal)
    target = np.array([1 + 0.5 * (2 + 0.25 * H), 7])  # min(3 * 2, 2)
    q = np.array([[1.0, 3.0], [-2.0, -6.0]])
    q_loss = np.sum(0.5 * (q - target) ** 2)
    actor_loss = np.sum(-(q[1] + 0.25 * H))  # the second critic is the smaller one
    np.testing.assert_allclose(parts["q_loss"], [q_loss, 2], rtol=1e-6)
    np.testing.assert_allclose(parts["actor_loss"], [actor_loss, 2], rtol=1e-6)
    np.testing.assert_allclose(parts["entropy"], [2 * H, 2], rtol=1e-6)
    of_alpha = 2 * np.log(0.25) * (H - goal)
    np.testing.assert_allclose(total, [q_loss + actor_loss + of_alpha, 2], rtol=1e-6)


def test_each_part_is_moved_by_its_own_loss_alone():
    env = sac.wrap(Drift(), CFG)

    @jit
    def gradients(key):
        init_key, row_key, noise_key = jax.random.split(key, 3)
        trained = sac.init(init_key, cfg=CFG, env=env).learner.trained
        trained = trained.replace(log_alpha=jnp.float32(-1.0))
        obs, next_obs = jax.random.normal(row_key, (2, 8, 2))
        paid, over = jnp.ones(8), jnp.arange(8) > 5
        batch = Row(obs, obs[:, :1], paid, next_obs, over), jax.random.normal(noise_key, (8, 2, 1))
        given = {"frozen": trained, "targets": trained.critics, "cfg": CFG, "goal": -1.0}
        whole = jax.grad(lambda x: sac.loss(x, batch, **given)[0].numerator)(trained)
        part = lambda name: jax.grad(lambda x: sac.loss(x, batch, **given)[1][name].numerator)  # noqa: E731
        log = sac.loss(trained, batch, **given)[1]
        return whole, part("q_loss")(trained), part("actor_loss")(trained), log["entropy"]

    whole, of_q, of_actor, entropy = gradients(jax.random.key(0))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, whole.critics, of_q.critics)
    jax.tree.map(close, whole.actor, of_actor.actor)
    close(whole.log_alpha, entropy.numerator + 8)  # falls while the entropy is above its goal
    for x in jax.tree.leaves((of_q.actor, of_actor.critics, of_actor.log_alpha)):
        assert not np.any(x)
    assert all(np.any(x) for x in jax.tree.leaves((of_q.critics, of_actor.actor)))


def test_the_value_of_choices_is_their_expectation_and_illegal_ones_have_no_part_in_it():
    class Stub(StubCritics):
        def __call__(self, inputs):
            return self.scale * inputs

    q = np.float32([[1.0, 2.0, 4.0]])
    critics = Stub(np.float32([1.0, 0.5]), Spec(Discrete(3)))
    logits = np.log(np.float32([[0.5, 0.25, 0.25]]))
    found = sac.value_and_entropy(Categorical(logits), critics, q, None)
    np.testing.assert_allclose(found[0], [0.5 * 0.5 + 0.25 * 1 + 0.25 * 2], rtol=1e-6)
    np.testing.assert_allclose(found[1], [1.5 * np.log(2)], rtol=1e-6)
    pi = Categorical(logits, np.array([[True, True, False]]))
    found = sac.value_and_entropy(pi, critics, q, None)
    np.testing.assert_allclose(found[0], [2 / 3 * 0.5 + 1 / 3 * 1], rtol=1e-6)
    np.testing.assert_array_equal(sac.of_action(critics, q, np.int32([2])), [[4.0], [2.0]])


def test_the_entropy_to_keep_follows_the_actions_unless_it_is_given():
    assert sac.entropy_target(CFG, Box(-1.0, 1.0, (3,))) == -3
    assert sac.entropy_target(CFG, Discrete(4)) == pytest.approx(0.3 * np.log(4))
    assert sac.entropy_target(sac.Config(target_entropy=-0.5), Discrete(4)) == -0.5


PROBE = sac.Config(
    num_envs=8,
    num_steps=8,
    total_steps=64 * 150,
    batch_size=64,
    learning_rate=0.01,
    gamma=0.9,
    tau=0.05,
    hidden=(16,),
    reset_pool=8,
)


def test_reals_copy_the_observation_and_a_reward_for_ever_is_worth_1_over_1_minus_gamma():
    obs = np.float32([[-1.0], [1.0]])

    def read(state):
        trained = state.learner.trained
        action = jnp.tanh(trained.actor.distribution(obs).mode())
        return 2 * action[:, 0], each_q(trained.critics, (obs, 0 * obs))

    probes = [TimeLimit(Probe(jnp.int32(i)), 5) for i in range(len(PROBES))]
    target, forever = learned(sac, PROBE, probes, read)
    np.testing.assert_allclose(target[0], [-1, 1], atol=0.15)
    np.testing.assert_allclose(forever[1][:, 1], [10, 10], rtol=0.1)


def test_choices_that_pay_are_taken_as_often_as_the_entropy_allows():
    obs = np.float32([[-1.0], [1.0]])

    def read(state):
        pi = state.learner.trained.actor.distribution(obs)
        return pi.probability(), pi.entropy()

    cfg = sac.Config(**vars(PROBE) | {"target_entropy": 0.3, "total_steps": 64 * 100})
    ((probability, entropy),) = learned(sac, cfg, [value.ActionObsReward()], read)
    assert np.all(probability[[0, 1], [0, 1]] > 0.85)
    np.testing.assert_allclose(np.mean(entropy), 0.3, atol=0.15)


@pytest.mark.slow
def test_sac_with_default_options_swings_a_pendulum_up_in_20000_steps(tmp_path):
    args = trainer.Args(num_seeds=5, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_steps) == ("Pendulum-v1", 20_000)
    summary = loop.train(args, trainer.setup(args))
    assert np.median(summary["final_return"]["per_seed"]) >= -180
