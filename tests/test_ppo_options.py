"""What PPO's options do: schedules, clips of gradients, parts that None switches off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import jit
from small_ppo import RATE, config, small_policy

import envs
from jaxrl.algos import ppo
from jaxrl.metrics import quotient
from jaxrl.rollout import Ended, Transition
from jaxrl.spaces import Box, Discrete


@pytest.fixture(scope="module")
def learnt():
    """A function of options: (learning rate that the metrics tell, movement of one weight,
    optimiser state) of 5 iterations of `ppo.learn` on rows that stay the same."""
    env = ppo.wrap(envs.make("probe/FreshRandomness-v0"), ONCE)
    shape = (ONCE.num_steps, ONCE.num_envs)

    @jit
    def run(cfg, key):
        state = ppo.init(key, cfg=cfg, env=env)
        flags = jnp.zeros(shape, jnp.bool_)
        obs = jnp.broadcast_to(jnp.arange(4.0), (*shape, 4))
        action, log_prob = jnp.zeros(shape, jnp.int32), jnp.full(shape, -1.0)
        steps = Transition(obs, action, log_prob, jnp.ones(shape), flags, flags, obs)
        ended = Ended({}, *[jnp.zeros(cfg.num_envs)] * 3)

        def step(state, key):
            after, metrics = ppo.learn(state, state.carry, steps, ended, key, cfg=cfg)
            bias = lambda state: state.policy.critic.out.bias[...][0]  # noqa: E731
            return after, (quotient(metrics["learning_rate"]), bias(after) - bias(state))

        state, log = jax.lax.scan(step, state, jax.random.split(jax.random.fold_in(key, 1), 5))
        return *log, state.opt_state

    return lambda **options: jax.tree.map(
        np.asarray, run(ppo.Config(**(vars(ONCE) | options)), jax.random.key(0))
    )


ONCE = config(normalize_obs=False, normalize_reward=False, lr_schedule="linear", total_steps=91)


def test_the_linear_schedule_falls_to_one_step_at_the_last_iteration_and_zero_after_it(learnt):
    assert ONCE.num_iterations == 3  # rounded up
    rate, moved, opt_state = learnt(target_kl=1e9)
    np.testing.assert_allclose(rate, RATE * np.float32([1, 2 / 3, 1 / 3, 0, 0]), rtol=1e-6)
    assert np.all(np.abs(moved[:3]) > rate[:3] / 2) and np.all(moved[3:] == 0)
    assert adam(opt_state).count == 5


def test_minibatches_that_are_skipped_do_not_hold_the_learning_rate_up(learnt):
    rate, moved, opt_state = learnt(target_kl=1e-9)
    np.testing.assert_allclose(rate, RATE * np.float32([1, 2 / 3, 1 / 3, 0, 0]), rtol=1e-6)
    assert np.all(moved == 0) and adam(opt_state).count == 0  # all were skipped


def adam(state):
    """Adam's part of an optimiser's state; its count must be the only one there is."""
    is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)  # noqa: E731
    (found,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
    counts = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert len(counts) == 1, "a schedule counts for itself"
    return found


@pytest.mark.parametrize("space", [Discrete(3), Box(-1.0, 1.0, (3,))])
@pytest.mark.parametrize("grad_clip", ["global", "network"])
def test_gradients_are_clipped_together_or_network_by_network(grad_clip, space):
    policy = small_policy(space)
    grads = jax.tree.map(lambda x: 0.01 * x, policy)
    grads.actor = jax.tree.map(lambda x: 1e4 * x, grads.actor)
    before = float(optax.tree.norm(grads.critic))
    optimizer = ppo.optimizer(config(max_grad_norm=0.5, grad_clip=grad_clip))
    _, state = jit(lambda p, g: optimizer.update(g, optimizer.init(p), p))(policy, grads)
    seen = jax.tree.map(lambda x: 10 * x, adam(state).mu)  # mu = (1 - 0.9) * the clipped gradient
    np.testing.assert_allclose(optax.tree.norm(seen.actor), 0.5, rtol=1e-3)
    kept = float(optax.tree.norm(seen.critic))
    if grad_clip == "network":
        np.testing.assert_allclose(kept, before, rtol=1e-4)
    else:
        assert kept < before / 100


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"num_minibatches": 3},
            "num_minibatches=3 does not divide num_envs[*]num_steps=32; try 2",
        ),
        (
            {"num_minibatches": 32},
            "num_minibatches=32 leaves one row in each, .* try 16 or advantage_norm=batch",
        ),
        ({"target_kl": 0.0}, "target_kl=0.0 must be a finite number above 0; try 0.2"),
        ({"value_clip": float("inf")}, "value_clip=inf must be a finite number above 0; try 0.2"),
        ({"accumulate": 5}, "accumulate=5 does not divide rows per minibatch=32; try 4 or 8"),
        ({"num_envs": 0}, "num_envs=0 must be .* above 0; try 16"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be a finite"),
        ({"gamma": 1.01}, r"gamma=1.01 must lie in \[0.0, 1.0\]; try 0.99"),
        ({"entropy_coef": float("nan")}, "entropy_coef=nan must lie in"),
        ({"hidden": (8, -1)}, "hidden=-1 must be .* try 64"),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(options, words):
    with pytest.raises(ValueError, match=words):
        config(**options)


def test_one_row_a_minibatch_is_allowed_where_its_own_mean_is_not_taken_away():
    for how in ("batch", "none"):
        assert config(num_minibatches=32, advantage_norm=how).minibatch_rows == 1


@pytest.mark.parametrize("option", ["target_kl", "value_clip"])
def test_none_switches_a_part_of_the_program_off_and_a_number_on(option):
    """By the program's structure: nothing of it is left, and the number is one of its inputs."""
    programs = {}
    for value in (None, 0.1, 0.2):
        cfg = config(**{option: value})
        env = ppo.wrap(envs.make("probe/FreshRandomness-v0"), cfg)
        state = jax.eval_shape(partial(ppo.init, cfg=cfg, env=env), jax.random.key(0))
        update = lambda state, key, cfg, env=env: ppo.update(state, key, cfg=cfg, env=env)  # noqa: E731
        programs[value] = str(jax.make_jaxpr(update)(state, jax.random.key(0), cfg))
    assert programs[0.1] == programs[0.2] != programs[None]
    assert len(programs[None]) < len(programs[0.1])


@pytest.mark.parametrize("norm", ["minibatch", "batch", "none"])
def test_advantages_are_normalised_in_32_bits_where_64_are_allowed(norm):
    cfg = ppo.Config(num_envs=2, num_steps=4, num_minibatches=2, advantage_norm=norm)
    with jax.enable_x64(True):
        advantage, order = jnp.arange(8, dtype=jnp.float32), jnp.arange(8).reshape(1, 2, 4)
        moments = ppo.advantage_moments(advantage, order, cfg, None)
    assert [(x.shape, x.dtype) for x in moments] == [((2,), jnp.float32)] * 2
