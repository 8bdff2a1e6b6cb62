"""The grid environments against rules worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs

UP, RIGHT, DOWN, LEFT = range(4)


@pytest.fixture(scope="module")
def grid_step():
    return jax.jit(jax.vmap(envs.make("GridWorld-v0").env.step, (0, 0, None)))


def play(env, actions):
    """The TimeSteps of these actions from a reset, stacked."""
    key = jax.random.key(0)

    @jax.jit
    def run(actions):
        state, _ = env.reset(key)
        return jax.lax.scan(lambda s, a: env.step(s, a, key), state, actions)[1]

    return run(jnp.asarray(actions, jnp.int32))


def gridworld_moves():
    """(cell, action) -> next cell by walking over the drawn map, for all but the goal's cell."""
    board = ["S...", ".#..", "....", "...G"]
    offset = {UP: (-1, 0), RIGHT: (0, 1), DOWN: (1, 0), LEFT: (0, -1)}
    moves = {}
    for cell in range(15):
        for action, (down, right) in offset.items():
            row, column = cell // 4 + down, cell % 4 + right
            free = 0 <= row < 4 and 0 <= column < 4 and board[row][column] != "#"
            moves[cell, action] = row * 4 + column if free else cell
    return moves


def test_gridworld_moves_as_on_the_drawn_map_and_stays_at_walls_and_edges(grid_step):
    moves = gridworld_moves()
    cell, action = (jnp.int32(x) for x in zip(*moves, strict=True))
    state, ts = grid_step(cell, action, jax.random.key(0))
    np.testing.assert_array_equal(state, list(moves.values()))
    np.testing.assert_array_equal(ts.obs, state)
    assert moves[1, DOWN] == 1 and moves[4, RIGHT] == 4 and moves[0, UP] == 0  # the map itself


def test_gridworld_pays_1_at_the_goal_alone_and_costs_4_cents_elsewhere(grid_step):
    moves = gridworld_moves()
    cell, action = (jnp.int32(x) for x in zip(*moves, strict=True))
    state, ts = grid_step(cell, action, jax.random.key(0))
    arrived = np.asarray(state) == 15
    assert arrived.sum() == 2  # from 11 down and from 14 right
    np.testing.assert_allclose(ts.reward, np.where(arrived, 1.0, -0.04), rtol=1e-6)
    np.testing.assert_array_equal(ts.terminated, arrived)
    np.testing.assert_array_equal(ts.metrics["success"], arrived)
    assert not np.any(ts.truncated)


def test_gridworld_shortest_path_takes_6_steps_and_returns_0_8():
    ts = play(envs.make("GridWorld-v0"), [RIGHT, RIGHT, DOWN, DOWN, DOWN, RIGHT])
    np.testing.assert_array_equal(ts.obs, [1, 2, 6, 10, 14, 15])
    np.testing.assert_array_equal(ts.terminated, [False] * 5 + [True])
    np.testing.assert_allclose(ts.reward.sum(), 0.8, rtol=1e-6)


def test_gridworld_is_truncated_at_step_50_and_not_terminated():
    ts = play(envs.make("GridWorld-v0"), [UP] * 50)
    assert not np.any(ts.terminated)
    np.testing.assert_array_equal(ts.truncated, np.arange(50) == 49)
    np.testing.assert_array_equal(ts.metrics["success"], np.zeros(50))


def test_gridworld_refuses_a_goal_off_the_board():
    with pytest.raises(ValueError, match="goal=16 must be a number from 0 to 15"):
        envs.make("GridWorld-v0", goal=16)
    with pytest.raises(ValueError, match="goal=5 and wall=5 must differ"):
        envs.make("GridWorld-v0", goal=5)


def test_corridor_walks_right_to_the_goal_for_its_length_in_steps():
    ts = play(envs.make("SimpleCorridor-v0"), [1] * 10)
    np.testing.assert_array_equal(ts.obs, np.arange(1, 11))
    np.testing.assert_array_equal(ts.terminated, np.arange(10) == 9)
    np.testing.assert_allclose(ts.reward, [-0.1] * 9 + [1.0], rtol=1e-6)
    np.testing.assert_array_equal(ts.metrics["success"], np.arange(10) == 9)


def test_corridor_has_a_wall_left_of_the_start():
    ts = play(envs.make("SimpleCorridor-v0", length=3), [0, 1, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(ts.obs, [0, 1, 0, 0, 1, 2, 3])
    np.testing.assert_allclose(ts.reward, [-0.1] * 6 + [1.0], rtol=1e-6)


def test_corridor_length_is_a_field_that_sets_the_observation_space():
    assert envs.make("SimpleCorridor-v0", length=3).observation_space.n == 4
    with pytest.raises(ValueError, match="length=0 must be a number from 1 to 1000000"):
        envs.make("SimpleCorridor-v0", length=0)


def test_corridor_is_truncated_at_step_100():
    ts = play(envs.make("SimpleCorridor-v0"), [0] * 100)
    np.testing.assert_array_equal(ts.truncated, np.arange(100) == 99)
    assert not np.any(ts.terminated)
