"""Policies: features of every space, shapes with any batch axes, one parameter for one purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl import networks
from jaxrl.networks import ActorCritic, NetworkSpec
from jaxrl.spaces import Box, Discrete, MultiDiscrete

VECTOR = Box(-1.0, 1.0, (3,))
BOARD = Box(0, 1, (5, 4, 2), np.bool_)
IMAGE = Box(0, 255, (36, 36, 1), np.uint8)
MIXED = {"board": Box(-9.0, 9.0, (2, 2)), "kind": Discrete(3), "pair": MultiDiscrete((2, 3))}

features = jit(networks.features, static_argnums=0)


def make(observation_space, action_space, kind="mlp", hidden=(8,), activation="tanh", squash=False):
    """A policy with random numbers for parameters: its own take seconds to compile."""
    spec = NetworkSpec(observation_space, action_space, kind, hidden, activation, squash)
    shapes = jax.eval_shape(lambda: ActorCritic(spec, nnx.Rngs(params=jax.random.key(0))))
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))  # noqa: E731
    return jax.tree.map(lambda x: np.float32(draw(x)), shapes)


@jax.jit
def outputs(policy, obs):
    """(the distribution's parameters, value)"""
    pi = policy.distribution(obs)
    return pi, policy.value(obs)


def random_obs(space, batch):
    rng = np.random.default_rng(0)
    high = 2 if space.dtype == np.bool_ else 256 if space.dtype == np.uint8 else 5
    return rng.integers(0, high, (*batch, *space.shape)).astype(space.dtype)


def test_the_features_of_a_discrete_observation_are_one_hot():
    got = features(Discrete(3), np.array([[2, 0]], np.int32))
    np.testing.assert_array_equal(got, [[[0, 0, 1], [1, 0, 0]]])


def test_the_features_of_a_multi_discrete_observation_are_one_hot_each():
    got = features(MultiDiscrete((2, 3)), np.array([[1, 0], [0, 2]], np.int32))
    np.testing.assert_array_equal(got, [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])


def test_the_features_of_a_box_are_its_entries_in_order_as_float32():
    obs = random_obs(BOARD, (2, 3))
    got = features(BOARD, obs)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, obs.reshape(2, 3, 40))


def test_the_features_of_a_dict_are_those_of_its_entries_sorted_by_name():
    obs = {
        "pair": np.array([[1, 2]], np.int32),
        "kind": np.array([1], np.int32),
        "board": np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32),
    }
    got = jit(lambda obs: networks.features(MIXED, obs))(obs)
    np.testing.assert_array_equal(got, [[1, 2, 3, 4, 0, 1, 0, 0, 1, 0, 0, 1]])
    assert networks.num_features(MIXED) == 12


@pytest.mark.parametrize("space", [VECTOR, BOARD, Discrete(3), MultiDiscrete((2, 3))])
def test_num_features_is_the_width_of_features(space):
    obs = jax.ShapeDtypeStruct(space.shape, space.dtype)
    got = jax.eval_shape(lambda obs: networks.features(space, obs), obs)
    assert got.shape == (networks.num_features(space),)


@pytest.mark.parametrize(
    ("space", "kind"), [(VECTOR, "mlp"), (BOARD, "mlp"), (BOARD, "cnn"), (IMAGE, "cnn")]
)
def test_any_leading_batch_axes_give_the_outputs_of_each_observation(space, kind):
    policy = make(space, Discrete(5), kind)
    obs = random_obs(space, (2, 3))
    pi, value = outputs(policy, obs)
    assert pi.logits.shape == (2, 3, 5) and value.shape == (2, 3)
    assert len(np.unique(value)) == 6  # it looks at what it sees
    for batch, index in (((6,), np.s_[:]), ((), np.s_[1, 2])):
        part = obs.reshape(*batch, *space.shape) if batch else obs[index]
        some_pi, some_value = outputs(policy, part)
        expected = value.reshape(batch) if batch else value[index]
        np.testing.assert_allclose(some_value, expected, rtol=1e-5, atol=1e-6)
        expected = pi.logits.reshape(*batch, 5) if batch else pi.logits[index]
        np.testing.assert_allclose(some_pi.logits, expected, rtol=1e-5, atol=1e-6)


def test_a_dict_of_observations_feeds_an_mlp():
    policy = make(MIXED, Discrete(2))
    obs = {name: np.zeros((4, *s.shape), s.dtype) for name, s in MIXED.items()}
    pi, value = outputs(policy, obs)
    assert pi.logits.shape == (4, 2) and value.shape == (4,)


@pytest.mark.parametrize("space", [VECTOR, Discrete(3), Box(0, 255, (8, 8), np.uint8), MIXED])
def test_a_cnn_for_what_is_no_image_is_refused_with_a_way_out(space):
    with pytest.raises(ValueError, match=r"(?s)network=cnn needs image observations .* try "):
        make(space, Discrete(2), "cnn")


@pytest.mark.parametrize("shape", [(17, 30, 1), (35, 84, 3), (2, 9, 1)])
def test_an_image_too_small_for_the_convolutions_is_refused(shape):
    with pytest.raises(ValueError, match=f"not {shape[0]}x{shape[1]}; try network=mlp"):
        make(Box(0, 255, shape, np.uint8), Discrete(2), "cnn")


def test_a_squashed_choice_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"squash=True needs a Box .* Discrete"):
        make(VECTOR, Discrete(2), squash=True)


def test_a_uint8_image_is_scaled_to_one_unless_it_was_normalised():
    policy = make(IMAGE, Discrete(2), "cnn")
    plain = make(Box(0.0, 1.0, IMAGE.shape), Discrete(2), "cnn")
    obs = random_obs(IMAGE, ())
    scaled = obs.astype(np.float32) / 255
    expected = outputs(plain, scaled)[1]
    np.testing.assert_allclose(outputs(policy, obs)[1], expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs(policy, scaled)[1], expected)


def test_a_uint8_board_of_ones_is_not_scaled():
    board = make(Box(0, 1, (5, 4, 2), np.uint8), Discrete(2), "cnn")
    ones = np.ones((5, 4, 2), np.uint8)
    expected = outputs(board, ones.astype(np.float32))[1]
    np.testing.assert_allclose(outputs(board, ones)[1], expected, rtol=1e-5)


def test_log_std_exists_only_for_a_box_of_actions():
    assert make(VECTOR, Discrete(2)).log_std is None
    assert make(VECTOR, MultiDiscrete((2, 2))).log_std is None
    policy = make(VECTOR, Box(-1.0, 1.0, (4,)))
    pi, _ = outputs(policy, np.zeros((7, 3), np.float32))
    assert pi.mean.shape == (7, 4)
    np.testing.assert_array_equal(pi.log_std, policy.log_std[...])


@pytest.mark.parametrize("squash", [False, True])
def test_only_a_squashed_action_goes_through_tanh_on_its_way_out(squash):
    policy = make(VECTOR, Box(-1.0, 1.0, (1,)), squash=squash)
    action = np.float32([0.5, -3.0])
    expected = np.tanh(action) if squash else action
    np.testing.assert_allclose(policy.to_env(action), expected, rtol=1e-6)


def test_actor_and_critic_share_no_parameter():
    policy = make(VECTOR, Discrete(2))
    obs = np.ones((4, 3), np.float32)
    of_value = jit(jax.grad(lambda p: jnp.sum(p.value(obs))))(policy)
    of_logits = jit(jax.grad(lambda p: jnp.sum(p.distribution(obs).logits[:, 0])))(policy)
    assert not any(np.any(x) for x in jax.tree.leaves(of_value.actor))
    assert not any(np.any(x) for x in jax.tree.leaves(of_logits.critic))
    assert any(np.any(x) for x in jax.tree.leaves(of_value.critic))
    assert any(np.any(x) for x in jax.tree.leaves(of_logits.actor))


def test_fresh_kernels_are_orthogonal_with_a_gain_for_each_kind_of_layer_and_the_rest_is_zero():
    spec = NetworkSpec(VECTOR, Box(-1.0, 1.0, (5,)), "mlp", (8, 6), "tanh", False)
    init = jit(lambda key: ActorCritic(spec, nnx.Rngs(params=key)))
    policy = init(jax.random.key(0))
    assert not np.any(policy.log_std[...])
    for tower, gain in ((policy.actor, 0.01), (policy.critic, 1.0)):
        layers = [(layer, 2**0.5) for layer in tower.hidden] + [(tower.out, gain)]
        for layer, gain in layers:
            kernel = np.asarray(layer.kernel[...], np.float64)
            small = kernel @ kernel.T if kernel.shape[0] < kernel.shape[1] else kernel.T @ kernel
            np.testing.assert_allclose(small, gain**2 * np.eye(len(small)), atol=1e-5)
            assert not np.any(layer.bias[...])
    kernels = [policy.actor.hidden[0].kernel[...], policy.critic.hidden[0].kernel[...]]
    assert np.all(kernels[0] != kernels[1])


@pytest.mark.parametrize(
    ("activation", "expected"), [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))]
)
def test_the_activation_stands_between_the_layers_and_not_after_the_last(activation, expected):
    policy = make(VECTOR, Discrete(5), activation=activation)
    obs = np.float32([0.5, -2.0, 1.0])
    hidden, out = policy.critic.hidden[0], policy.critic.out
    inner = expected(obs @ hidden.kernel[...] + hidden.bias[...])
    want = inner @ out.kernel[...] + out.bias[...]
    np.testing.assert_allclose(outputs(policy, obs)[1], want[0], rtol=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_the_joint_pass_gives_what_the_two_towers_give(hidden):
    policy = make(VECTOR, Discrete(2), hidden=hidden)
    obs = jax.random.normal(jax.random.key(1), (5, 3))
    distribution, value = policy.distribution_and_value(obs)
    action = jnp.asarray([0, 1, 0, 1, 0])
    alone = policy.distribution(obs).log_prob(action)
    np.testing.assert_allclose(distribution.log_prob(action), alone, atol=1e-6)
    np.testing.assert_allclose(value, policy.value(obs), atol=1e-6)
    assert np.ptp(value) > 1e-3
