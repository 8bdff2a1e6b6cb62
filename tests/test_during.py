"""Evaluation while training: when it happens, what it plays, and which policy is kept."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrl import Box, Discrete, Environment, timestep
from jaxrl.mesh import DATA, SEED, make_mesh
from jaxrl.program import make_program, members
from jaxrl.train.during import watched
from jaxrl.train.trainer import Outcome, Task

SCORES = jnp.array([0, 0, 3, 1, 5, 9, 4, 0, 5], jnp.float32)  # of the policy after iteration i


class Pays(Environment):
    """One step, which pays the action times what was drawn at the reset."""

    observation_space = Box(0.0, 1.0, ())  # pyright: ignore
    action_space = Discrete(10)  # pyright: ignore

    def reset(self, key):
        obs = jax.random.uniform(key, (), minval=0.5, maxval=1.5)
        return obs, timestep(obs)

    def step(self, state, action, key):
        del key
        return state, timestep(state, action * state, terminated=True)


class Plays(flax.struct.PyTreeNode):
    """A policy of one number."""

    number: jax.Array

    def begin(self):
        return ()

    def step(self, memory, obs, key):
        del obs, key
        return memory, self.number


class Learner(flax.struct.PyTreeNode):
    policy: Plays
    iteration: jax.Array


def toy() -> Task:
    """A learner whose policy after iteration i plays SCORES[i], but the second member's 1 more."""

    def init(key, member, *, axis):
        del key, member, axis
        return Learner(Plays(jnp.float32(0)), jnp.zeros((), jnp.int32))

    def update(state, key, member, *, axis):
        del key, axis
        after = state.iteration + 1
        return Learner(Plays(SCORES[after] + member.seed), after), {}

    return Task(
        name="toy",
        init=init,
        update=update,
        layout=P(SEED),
        cfg=None,
        env=Pays(),
        num_iterations=8,
        steps_per_iteration=1,
        outcome=Outcome(lambda state: state.policy, lambda *_: None, lambda *_: {}),
    )


def run(num_devices: int, count: int = 8):
    task = watched(toy(), every=2, episodes=6)
    mesh = make_mesh(2, jax.devices()[:num_devices])
    program = make_program(task.init, task.update, task.layout, mesh, 8, look=task.look)
    several = program.place(members([0, 1], None, task.env))
    assert mesh.shape[DATA] == max(num_devices // 2, 1)
    state, metrics = program.run(program.init(several), several, program.scalar(count))
    return jax.device_get((state, metrics["eval_return"]))


def test_every_second_iteration_is_evaluated_and_the_first_best_policy_is_kept():
    state, seen = run(1)
    due = np.arange(1, 9) % 2 == 0
    np.testing.assert_array_equal(seen.denominator, np.stack([due, due], 1))
    np.testing.assert_array_equal(seen.numerator[~due], 0)
    # the episodes are other ones each time, so scores are near those of the mean start, 1
    for i in (1, 3, 5, 7):
        scores = seen.numerator[i] / (SCORES[i + 1] + np.array([0, 1]) + 1e-9)
        known = scores[np.asarray(SCORES[i + 1] + np.array([0, 1])) > 0]
        assert np.all((known > 0.5) & (known < 1.5))
    best = np.argmax(seen.numerator, 0)
    np.testing.assert_array_equal(state.best_iteration, best + 1)
    np.testing.assert_array_equal(state.best_return, seen.numerator.max(0))
    np.testing.assert_array_equal(state.best.number, SCORES[best + 1] + np.array([0, 1]))
    assert set(best + 1) <= {4, 8} and state.learner.policy.number[0] == SCORES[8]


def test_episodes_are_fresh_each_time_and_differ_between_members():
    _, seen = run(1)
    starts = seen.numerator[[3, 7]] / np.array([[5, 6], [5, 6]])
    assert len(np.unique(starts)) == 4


def test_what_is_played_does_not_depend_on_the_devices():
    """Six episodes on four devices, so two of a member's: three each."""
    (state, seen), (other, again) = run(1), run(4)
    np.testing.assert_array_equal(seen.numerator, again.numerator)
    np.testing.assert_array_equal(state.best_iteration, other.best_iteration)
    _, uneven = run(8)  # four devices a member: two episodes on each, of which the last are cut
    np.testing.assert_array_equal(seen.numerator, uneven.numerator)
