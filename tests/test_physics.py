"""Physics that vary: what is drawn, when, what reads it, and what is refused."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import envs
from jaxrl.algos import ppo
from jaxrl.env import Environment, timestep
from jaxrl.mesh import make_mesh
from jaxrl.physics import (
    ActionDelay,
    Draw,
    ObservationNoise,
    Push,
    Randomise,
    numbers,
    with_numbers,
)
from jaxrl.program import make_program, members
from jaxrl.spaces import Box, Discrete
from jaxrl.train import curriculum, physics
from jaxrl.train.ppo import Args, setup
from jaxrl.vec import VecEnv

GRAVITY = "gravity=uniform:8:12"
PENDULUM = envs.make("Pendulum-v1", max_steps=None)


def drawn(draw, num=2**16, **level):
    keys = jax.random.split(jax.random.key(0), num)
    return np.asarray(jax.vmap(lambda key: draw.sample(key, **level))(keys))


@pytest.mark.parametrize(
    ("draw", "quantiles"),
    [
        (Draw((8.0, 12.0), "uniform"), (9.0, 10.0, 11.0)),
        (Draw((0.25, 4.0), "loguniform"), (0.5, 1.0, 2.0)),
        (Draw((10.0, 2.0), "normal"), (8.66, 10.0, 11.34)),  # +- 0.67 standard deviations
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_a_drawn_number_has_the_quantiles_and_the_ends_of_its_distribution(draw, quantiles):
    x = drawn(draw)
    np.testing.assert_allclose(np.quantile(x, (0.25, 0.5, 0.75)), quantiles, rtol=0.03)
    low, high = draw.ends
    assert low <= x.min() < low + 0.1 * (high - low) and high >= x.max() > 0.9 * high
    assert x.dtype == np.float32 and len(np.unique(x)) > 10_000


def test_whole_numbers_and_choices_are_each_as_likely():
    for draw in (Draw((1, 3), "uniform", whole=True), Draw((1, 2, 3), "choice", whole=True)):
        x = drawn(draw)
        assert x.dtype == np.int32
        np.testing.assert_allclose(np.bincount(x) / len(x), (0, 1 / 3, 1 / 3, 1 / 3), atol=0.03)


def test_a_level_lies_between_the_own_number_and_the_drawn_one():
    draw, choice = Draw((8.0, 12.0), "uniform"), Draw((1.0, 3.0), "choice")
    np.testing.assert_array_equal(drawn(draw, base=5.0, level=0.0), 5.0)
    np.testing.assert_array_equal(drawn(draw, base=5.0, level=1.0), drawn(draw))
    half = drawn(draw, base=5.0, level=0.5)
    np.testing.assert_allclose(half, (5 + drawn(draw)) / 2, rtol=1e-6)
    share = np.mean(drawn(choice, base=7.0, level=0.25) == 7)
    assert 0.72 < share < 0.78


def test_an_episode_keeps_its_numbers_and_the_next_one_has_others():
    one = Randomise(PENDULUM, (Draw((8.0, 12.0), "uniform"),), ("gravity",))
    env = VecEnv(envs.make("Pendulum-v1", max_steps=4).replace(env=one), 64)

    @jax.jit
    def play(reset_key, key):
        def step(state, key):
            state, _ = env.step(state, jnp.zeros((64, 1)), key)
            return state, state.inner.inner.inner.drawn[0]

        return jax.lax.scan(step, env.reset(reset_key)[0], jax.random.split(key, 11))[1]

    # after steps 1 to 11; episodes end in the fourth and the eighth
    gravity = np.asarray(play(jax.random.key(0), jax.random.key(1)))
    np.testing.assert_array_equal(gravity[:3], gravity[[0, 0, 0]])
    np.testing.assert_array_equal(gravity[3:7], gravity[[3] * 4])
    assert len(np.unique(gravity[[0, 3, 7]])) == 3 * 64


def test_the_dynamics_are_those_of_an_environment_that_was_made_with_the_drawn_numbers():
    draws = (Draw((8.0, 12.0), "uniform"), Draw((0.5, 2.0), "loguniform"))
    env = Randomise(PENDULUM, draws, ("gravity", "length"))

    @jax.jit
    def play(env, state):
        def step(state, key):
            state, ts = env.step(state, jnp.ones(1), key)
            return state, (ts.obs, ts.reward)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(2), 20))[1]

    state, _ = env.reset(jax.random.key(1))
    gravity, length = state.drawn
    own = play(PENDULUM.replace(gravity=gravity, length=length), state.inner)
    jax.tree.map(np.testing.assert_array_equal, play(env, state), own)
    assert np.any(own[0] != play(PENDULUM.replace(gravity=gravity), state.inner)[0])


def test_what_can_be_drawn_are_numbers_wherever_they_lie_and_nothing_of_structure():
    assert numbers(PENDULUM) == {"gravity": 10.0, "mass": 1.0, "length": 1.0, "dt": 0.05}
    wrapped = ActionDelay(envs.make("Pendulum-v1"), 1, 2)
    assert numbers(wrapped)["action_delay"] == 1 and "most_delay" not in numbers(wrapped)
    assert numbers(with_numbers(wrapped, {"length": 3.0}))["length"] == 3.0


def test_a_picture_is_of_the_numbers_that_an_episode_has():
    grid = envs.make("GridWorld-v0", max_steps=None)
    env = ActionDelay(Randomise(grid, (Draw((1, 2), "choice", True),), ("goal",)), 1, 1)
    states, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 8))
    seen = envs.frames(env, states)
    for goal in (1, 2):
        chosen = np.flatnonzero(states.inner.drawn[0] == goal)
        own = jax.tree.map(lambda x: x[chosen[0]], states.inner.inner)  # noqa: B023
        np.testing.assert_array_equal(seen[chosen[0]], grid.replace(goal=goal).render(own))
    assert np.any(
        seen[0] != seen[int(np.argmax(states.inner.drawn[0] != states.inner.drawn[0][0]))]
    )


class Echo(Environment):
    """Shows the action it was given."""

    space: object = Box(-1.0, 3.0, (2,))
    observation_space = Box(-np.inf, np.inf, (2,))  # pyright: ignore

    @property
    def action_space(self):
        return self.space

    def reset(self, key):
        del key
        return jnp.zeros(()), timestep(jnp.zeros(2))

    def step(self, state, action, key):
        del key
        return state, timestep(jnp.broadcast_to(action, (2,)).astype(jnp.float32))


def echoed(env, action, seed=0):
    """What a step shows for each of the actions [T, ...]."""

    def step(state, given):
        state, ts = env.step(state, *given)
        return state, ts.obs

    keys = jax.random.split(jax.random.key(seed + 1), len(action))
    return np.asarray(jax.lax.scan(step, env.reset(jax.random.key(seed))[0], (action, keys))[1])


def test_a_delayed_action_acts_so_many_steps_later_and_before_that_nearest_to_0():
    action = jnp.arange(1.0, 6.0)[:, None] * jnp.ones(2) / 5
    np.testing.assert_array_equal(echoed(ActionDelay(Echo(), 0, 2), action), action)
    two = echoed(ActionDelay(Echo(), 2, 2), action)
    np.testing.assert_array_equal(two, [*np.zeros((2, 2)), *action[:3]])
    shifted = ActionDelay(Echo(Box(1.0, 3.0, (2,))), 1, 3)
    np.testing.assert_array_equal(echoed(shifted, action)[0], [1.0, 1.0])
    late = echoed(ActionDelay(Echo(Discrete(4)), 1, 1), jnp.array([3, 2, 1]))
    np.testing.assert_array_equal(late[:, 0], [0, 3, 2])


def test_a_delay_is_drawn_at_every_reset():
    env = Randomise(ActionDelay(Echo(), 0, 2), (Draw((0, 2), "uniform", True),), ("action_delay",))
    action = jnp.arange(1.0, 4.0)[:, None] * jnp.ones(2)
    first = {int(3 - echoed(env, action, seed)[-1, 0]) for seed in range(0, 40, 2)}
    assert first == {0, 1, 2}


def test_noise_is_in_what_is_observed_alone_and_stays_within_the_bounds():
    noisy, keys = ObservationNoise(PENDULUM, 0.5), jax.random.split(jax.random.key(0), 512)
    state, ts = jax.vmap(noisy.reset)(jax.random.split(jax.random.key(1), 512))
    after, stepped = jax.vmap(noisy.step)(state, jnp.ones((512, 1)), keys)
    quiet, clean = jax.vmap(partial(PENDULUM.step, key=jax.random.key(2)))(
        state, jnp.ones((512, 1))
    )
    jax.tree.map(np.testing.assert_array_equal, after, quiet)
    np.testing.assert_array_equal(stepped.reward, clean.reward)
    error = stepped.obs - clean.obs
    assert 0.45 < np.std(error[:, 2]) < 0.55 and np.abs(stepped.obs[:, :2]).max() == 1
    np.testing.assert_array_equal(stepped.obs, stepped.final_obs)
    seen = jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta)], -1)
    assert np.all(np.any(ts.obs[:, :2] != seen, -1))


def test_a_push_adds_to_reals_and_replaces_a_choice_as_often_as_asked():
    action = jnp.full((400, 2), 0.5)
    hit = echoed(Push(Echo(), 0.25, 0.5), action)
    pushed = np.any(hit != 0.5, -1)
    assert 0.18 < pushed.mean() < 0.32
    assert 0.8 < np.abs(hit - 0.5).max() <= 1.0  # half of half the range of 4
    choices = echoed(Push(Echo(Discrete(4)), 1.0), jnp.zeros(400, jnp.int32))[:, 0]
    assert np.bincount(choices.astype(int)).min() > 70
    assert np.all(echoed(Push(Echo(), 0.0), action[:9]) == 0.5)


def test_without_options_nothing_is_put_around_an_environment():
    plain = physics.make(Args(), {})
    assert jax.tree.structure(plain) == jax.tree.structure(envs.make("CartPole-v1"))
    off = Args(observation_noise=0.0, action_delay=0, push_chance=0.0)
    assert jax.tree.structure(physics.make(off, {})) == jax.tree.structure(plain)


SMALL = ppo.Config(num_envs=4, num_steps=8, total_steps=32 * 8, num_minibatches=1, hidden=(8,))


def options(**given):
    return Args(env="Pendulum-v1", env_args=("max_steps=3",), algo=SMALL, **given)


def test_seeds_draw_their_own_numbers_and_a_run_goes_on_exactly():
    every = (GRAVITY, "action_delay=uniform:0:2", "observation_noise=choice:0:0.1")
    task = setup(options(randomise=every, push_chance=0.1, curriculum="0.5", num_seeds=2))
    program = make_program(task.init, task.update, task.layout, make_mesh(1, jax.devices()[:1]), 8)
    several = program.place(members([0, 1], task.cfg, task.env))
    run = lambda state, count: program.run(state, several, program.scalar(count))[0]  # noqa: E731
    whole, metrics = program.run(program.init(several), several, program.scalar(6))
    half = jax.device_get(run(program.init(several), 3))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(run(half, 3)))
    level = metrics["curriculum_level"].numerator[:6, 0]
    np.testing.assert_allclose(level, [0, 0.25, 0.5, 0.75, 1, 1])
    gravity = whole.learner.carry.env_state.inner.inner.drawn[0]  # [K, B]
    assert len(np.unique(gravity)) == 8 and np.all((gravity >= 8) & (gravity <= 12))


def test_a_level_goes_up_where_episodes_reach_the_threshold_and_down_where_not():
    args = options(randomise=(GRAVITY,), curriculum="episode_return:-1")
    task = setup(args)

    class Learner:
        iteration = jnp.zeros((), jnp.int32)

    def update(state, key, member, *, axis):
        return state, {"episode_return": key}  # the sums are given as the key

    task = replace(task, update=update)
    task = curriculum.widening(task, args.curriculum, {"episode_return"})
    member = members([0], task.cfg, task.env)
    level = jnp.float32(0.5)
    for numerator, count, after in ((-0.5, 1, 0.55), (-4.0, 2, 0.45), (0.0, 0, 0.5)):
        sums = curriculum.metrics.Sums(jnp.float32(numerator), jnp.float32(count))
        state = curriculum.Widening(Learner(), level)
        moved, _ = task.update(state, sums, member, axis=None)
        np.testing.assert_allclose(moved.level, after, rtol=1e-6)


BAD = [
    ({"randomise": ("gravty=uniform:8:12",)}, "no number 'gravty'; near: gravity"),
    ({"randomise": ("max_torque=uniform:1:2",)}, "max_torque shapes the program"),
    ({"randomise": ("gravity",)}, "NAME=DISTRIBUTION"),
    ({"randomise": ("gravity=8",)}, "NAME=DISTRIBUTION"),
    ({"randomise": ("gravity=gauss:8:1",)}, "NAME=DISTRIBUTION"),
    ({"randomise": ("gravity=uniform:8",)}, "uniform:LOW:HIGH with finite numbers"),
    ({"randomise": ("gravity=uniform:8:x",)}, "uniform:LOW:HIGH with finite numbers"),
    ({"randomise": ("gravity=uniform:8:inf",)}, "uniform:LOW:HIGH with finite numbers"),
    ({"randomise": ("gravity=uniform:8:1e39",)}, "uniform:LOW:HIGH with finite numbers"),
    ({"randomise": ("gravity=uniform:12:8",)}, "LOW below HIGH"),
    ({"randomise": ("length=loguniform:0:1",)}, "0 < LOW < HIGH"),
    ({"randomise": ("length=normal:1:0",)}, "STD above 0"),
    ({"randomise": ("length=choice:1",)}, "two different values"),
    ({"randomise": (GRAVITY, GRAVITY)}, "a second time"),
    ({"randomise": ("length=normal:1:1",)}, "length=-2.0 must be a number from 0.001"),
    ({"randomise": ("action_delay=uniform:0:1.5",)}, "action_delay is an integer"),
    ({"randomise": ("action_delay=uniform:0:9999",)}, "action_delay=9999 must lie in"),
    ({"randomise": ("push_chance=uniform:0:2",)}, "push_chance=2.0 must be a number from 0 to 1"),
    ({"randomise": (GRAVITY,), "env_args": ("gravity=9",)}, "is drawn, and given too"),
    ({"randomise": (GRAVITY,), "sweep": ("env.gravity=8,9",)}, "is drawn, and given too"),
    ({"randomise": ("push=uniform:0:1",), "push": 2.0, "push_chance": 0.1}, "given too"),
    ({"push_chance": 1.5}, "push_chance=1.5 must lie in [0.0, 1.0]"),
    ({"observation_noise": -0.1}, "observation_noise=-0.1 must lie in"),
    ({"action_delay": -1}, "action_delay=-1 must lie in"),
    ({"push": 1.0}, "push_chance is not given"),
    ({"curriculum": "0.5"}, "randomise has nothing"),
    ({"curriculum": "2", "randomise": (GRAVITY,)}, "above 0 and at most 1"),
    ({"curriculum": "x:y", "randomise": (GRAVITY,)}, "a share of the training, or METRIC:VALUE"),
    ({"curriculum": "win:1", "randomise": (GRAVITY,)}, "no metric win; try one of episode_length"),
    ({"env": "GridWorld-v0", "observation_noise": 0.1}, "needs observations of reals"),
    ({"env": "probe/Doors-v0", "action_delay": 1}, "would play illegal actions"),
]


@pytest.mark.parametrize(("given", "words"), BAD, ids=lambda x: str(x)[:40])
def test_bad_physics_are_refused_in_one_line(given, words):
    with pytest.raises(ValueError) as error:
        setup(Args(**({"env": "Pendulum-v1", "algo": SMALL} | given)))
    assert words in str(error.value) and "\n" not in str(error.value), error.value


def test_an_evaluation_may_fix_what_was_drawn_and_draw_what_was_fixed():
    run = Args(env_args=("dt=0.01",), randomise=(GRAVITY, "force=uniform:5:15"), push_chance=0.1)

    class Given(physics.Physics):
        env_args = ()

    given = Given(randomise=("dt=uniform:0.01:0.03",), push_chance=0.0)
    found = physics.changed(run, given)
    assert found.randomise == (*run.randomise, "dt=uniform:0.01:0.03")
    assert found.env_args == () and found.push_chance == 0.0
    Given.env_args = ("gravity=12",)
    found = physics.changed(run, Given())
    assert found.randomise == ("force=uniform:5:15",) and found.push_chance == 0.1
    assert found.env_args == ("dt=0.01", "gravity=12")
    noisy = physics.changed(run, Given(randomise=("push_chance=choice:0:0.1",)))
    assert noisy.push_chance is None and noisy.randomise[-1] == "push_chance=choice:0:0.1"
    with pytest.raises(ValueError, match="gravity is given a value too"):
        physics.changed(run, Given(randomise=(GRAVITY,)))
