"""A state may hold arrays of no numbers, as MJX's do: it is trained, saved and restored."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrl.checkpoint import Checkpoints, abstract
from jaxrl.mesh import DATA, SEED, make_mesh
from jaxrl.metrics import value
from jaxrl.program import make_program, members


class State(flax.struct.PyTreeNode):
    x: jax.Array  # [B]
    contacts: jax.Array  # [B, 0, 3]
    iteration: jax.Array


def init(key, member, axis):
    return State(jax.random.normal(key, (2,)), jnp.zeros((2, 0, 3)), jnp.zeros((), jnp.int32))


def update(state, key, member, axis):
    x = state.x + jax.random.normal(key)
    return State(x, state.contacts * 2, state.iteration + 1), {"x": value(jnp.mean(x))}


def test_a_state_with_an_array_of_no_numbers_is_trained_saved_and_restored(tmp_path):
    layout = State(P(SEED, DATA), P(SEED, DATA), P(SEED))
    program = make_program(init, update, layout, make_mesh(2, jax.devices()[:2]), 2)
    seeds = members([0, 1], None, None)
    start, run = program.compile(seeds)
    placed = program.place(seeds)
    state, _ = run(start(placed), placed, program.scalar(1))
    saved = Checkpoints(tmp_path / "checkpoints")
    saved.save(1, state)
    back = saved.restore(1, abstract(state))
    saved.close()
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert back.contacts.shape == (2, 2, 0, 3)
    once, twice = run(state, placed, program.scalar(1)), run(back, placed, program.scalar(1))
    jax.tree.map(np.testing.assert_array_equal, once, twice)
