"""Drawn actions onto every space: always inside, for each pair of space and distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl import actions, distributions, spaces
from jaxrl.spaces import Box, Discrete, MultiDiscrete, TextSpace

INF = np.inf
LOW = np.float32([-2.0, -INF, 0.0, -INF])
HIGH = np.float32([1.0, -5.0, INF, INF])
# space, scaling without and with squash (None: refused)
SPACES = {
    "discrete": (Discrete(5), "none", None),
    "multi": (MultiDiscrete((2, 3)), "none", None),
    "unit": (Box(-1.0, 1.0, (3,)), "rescale", "tanh"),
    "bounded": (Box(LOW[:1], HIGH[:1], (3,)), "rescale", "tanh"),
    "free": (Box(-INF, INF, (3,)), "none", None),
    "from 0": (Box(0.0, INF, (3,)), "clip", None),
    "up to -5": (Box(-INF, -5.0, (3,)), "clip", None),
    "mixed": (Box(LOW, HIGH, (4,)), "rescale", None),
    "mixed matrix": (Box(LOW.reshape(2, 2), HIGH.reshape(2, 2), (2, 2)), "rescale", None),
    "one infinite": (Box(np.float32([-1.0, -1.0]), np.float32([1.0, INF]), (2,)), "rescale", None),
    "scalar": (Box(-2.0, 2.0, ()), "rescale", "tanh"),
    "free scalar": (Box(-INF, INF, ()), "none", None),
    "point": (Box(0.1, 0.1, (2,)), "rescale", "tanh"),
    "huge": (Box(-3e38, 3e38, (2,)), "rescale", "tanh"),
    "float16": (Box(-1.1, 1.3, (2,), np.float16), "rescale", "tanh"),
    "bfloat16": (Box(0.3, INF, (2,), jnp.bfloat16), "clip", None),
    "float64": (Box(-0.1, 0.7, (2,), np.float64), "rescale", "tanh"),
}
PAIRS = [(name, squash) for name, case in SPACES.items() for squash in (False, True)]


@pytest.mark.parametrize(("name", "squash"), [p for p in PAIRS if SPACES[p[0]][1 + p[1]]])
def test_a_thousand_drawn_actions_lie_in_the_space_with_its_shape_and_dtype(name, squash):
    space, scaling = SPACES[name][0], actions.scaling(SPACES[name][0], squash)
    assert scaling == SPACES[name][1 + squash]
    drawn = actions.drawn_space(space, scaling)
    count = distributions.num_outputs(drawn)

    @jit
    def play(key):
        noise = distributions.noise(drawn, key, (1000,))
        wide = jnp.linspace(-3.0, 3.0, 1000)[:, None] * jnp.ones(count)
        pi = distributions.make(drawn, wide, jnp.ones(count), squash)
        action = actions.to_env(pi.sample(noise), space, scaling)
        return action, jax.vmap(lambda a: spaces.contains(space, a))(action)

    action, inside = play(jax.random.key(0))
    assert np.all(inside) and action.shape == (1000, *space.shape)
    assert action.dtype == jax.dtypes.canonicalize_dtype(space.dtype)
    assert name == "point" or np.ptp(np.asarray(action, np.float64)) > 0.1
    assert np.all(np.isfinite(np.asarray(action, np.float64)))


@pytest.mark.parametrize("name", [name for name, case in SPACES.items() if case[2] is None])
def test_what_cannot_be_squashed_is_refused_in_one_line_with_a_way_out(name):
    with pytest.raises(ValueError, match=r"^squash=True needs [^\n]*; leave it out\.$"):
        actions.scaling(SPACES[name][0], squash=True)


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (4,), np.uint8),
        Box(-1.0, 1.0, (0,)),
        TextSpace(4),
        {"a": Discrete(2)},
        (Discrete(2), Discrete(3)),
    ],
)
def test_a_space_without_a_distribution_is_refused_in_one_line_with_a_way_out(space):
    with pytest.raises(ValueError, match=r"^no distribution for the action [^\n]*: use Discrete"):
        actions.scaling(space)


def test_each_entry_is_mapped_by_its_own_bounds():
    space = SPACES["mixed"][0]
    drawn = np.float32([[0.0] * 4, [0.5, -6.0, 0.5, 0.5], [-9.0] * 4, [9.0] * 4])
    want = [[-0.5, -5, 0, 0], [0.25, -6, 0.5, 0.5], [-2, -9, 0, -9], [1, -5, 9, 9]]
    np.testing.assert_allclose(actions.to_env(drawn, space, "rescale"), want, rtol=1e-6)
    assert actions.drawn_space(space, "rescale") == Box(
        np.float32([-1, -INF, 0, -INF]), np.float32([1, -5, INF, INF]), (4,)
    )


def test_actions_of_several_axes_are_drawn_as_a_vector_in_order():
    space = SPACES["mixed matrix"][0]
    assert actions.drawn_space(space, "rescale").shape == (4,)
    drawn = np.float32([[0.0, -6.0, 0.5, 0.5]])
    got = actions.to_env(drawn, space, "rescale")
    np.testing.assert_allclose(got, [[[-0.5, -6.0], [0.5, 0.5]]], rtol=1e-6)


def test_squashed_actions_are_the_tanh_stretched_onto_the_bounds():
    drawn = np.float32([[-30.0, 0.0, 0.7]])
    got = actions.to_env(drawn, SPACES["bounded"][0], "tanh")
    np.testing.assert_allclose(got, np.tanh(drawn) * 1.5 - 0.5, rtol=1e-6)
