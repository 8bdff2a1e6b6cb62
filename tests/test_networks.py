"""Networks: encoders of every leaf, shapes with any batch axes, one parameter for one purpose."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl import networks
from jaxrl.networks import ActorCritic, Encoder, NetworkSpec
from jaxrl.spaces import Box, Discrete, MultiDiscrete, TextSpace

VECTOR = Box(-1.0, 1.0, (3,))
BOARD = Box(0, 1, (5, 4, 2), np.bool_)
IMAGE = Box(0, 255, (36, 36, 1), np.uint8)
MIXED = {"board": Box(-9.0, 9.0, (2, 2)), "kind": Discrete(3), "pair": MultiDiscrete((2, 3))}
PICTURE = {"image": Box(0, 255, (5, 4, 2), np.uint8), "speed": Box(-np.inf, np.inf, (3,))}
LEGAL = Box(False, True, (4,), np.bool_)


def random_numbers(build):
    """What `build` makes, with random numbers for parameters: its own take seconds to compile."""
    shapes = jax.eval_shape(build)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))  # noqa: E731
    return jax.tree.map(lambda x: np.float32(draw(x)), shapes)


def make(observation_space, action_space, kind="mlp", hidden=(8,), activation="tanh", squash=False):
    spec = NetworkSpec(observation_space, action_space, kind, hidden, activation, squash)
    return random_numbers(lambda: networks.build(spec, jax.random.key(0)))


def encoder(space, convolve=False):
    return random_numbers(lambda: Encoder(space, nnx.Rngs(params=jax.random.key(0)), convolve))


@jax.jit
def outputs(policy, obs):
    """(the distribution's parameters, value)"""
    return policy.distribution(obs), policy.value(obs)


encode = jit(lambda encoder, obs: encoder(obs))


def random_obs(space, batch):
    rng = np.random.default_rng(0)
    if isinstance(space, dict):
        return {name: random_obs(part, batch) for name, part in space.items()}
    high = 2 if space.dtype == np.bool_ else 256 if space.dtype == np.uint8 else 5
    return rng.integers(0, high, (*batch, *space.shape)).astype(space.dtype)


def test_the_features_of_a_discrete_observation_are_one_hot():
    got = encode(encoder(Discrete(3)), np.array([[2, 0]], np.int32))
    np.testing.assert_array_equal(got, [[[0, 0, 1], [1, 0, 0]]])


def test_the_features_of_a_multi_discrete_observation_are_one_hot_each():
    got = encode(encoder(MultiDiscrete((2, 3))), np.array([[1, 0], [0, 2]], np.int32))
    np.testing.assert_array_equal(got, [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])


def test_a_choice_of_many_values_is_embedded_and_the_others_beside_it_are_not():
    many = encoder(MultiDiscrete((2, 1000)))
    got = encode(many, np.array([[1, 7], [0, 999]], np.int32))
    table = many.parts[0].tables[0].embedding[...]
    assert table.shape == (1000, 32) and many.size == 34
    np.testing.assert_allclose(got, [[0, 1, *table[7]], [1, 0, *table[999]]], rtol=1e-6)
    assert encode(encoder(Discrete(65)), np.int32(3)).shape == (32,)
    assert encode(encoder(Discrete(64)), np.int32(3)).shape == (64,)


def test_the_features_of_a_box_are_its_entries_in_order_as_float32():
    obs = random_obs(BOARD, (2, 3))
    got = encode(encoder(BOARD), obs)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, obs.reshape(2, 3, 40))


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_the_features_of_a_dict_are_those_of_its_entries_in_the_order_of_a_pytree(kind):
    parts = {
        "pair": np.array([[1, 2]], np.int32),
        "kind": np.array([1], np.int32),
        "board": np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32),
    }
    space = kind((name, MIXED[name]) for name in parts)
    got = encode(encoder(space), kind(parts))
    board, one, pair = [1, 2, 3, 4], [0, 1, 0], [0, 1, 0, 0, 1]
    by_name, as_given = [*board, *one, *pair], [*pair, *one, *board]
    np.testing.assert_array_equal(got, [by_name if kind is dict else as_given])


@pytest.mark.parametrize(
    ("space", "convolve"),
    [(VECTOR, False), (Discrete(3), False), (MIXED, False), (PICTURE, False), (PICTURE, True)],
)
def test_an_encoder_knows_the_width_of_its_features(space, convolve):
    got = encode(encoder(space, convolve), random_obs(space, (2,)))
    assert got.shape == (2, encoder(space, convolve).size)


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (5, 4, 2), np.uint8),
        Box(0.0, 255.0, (5, 4, 2)),
        Box(0, 255, (4,), np.uint8),
        Box(-10, 245, (5, 4, 2), np.int16),
    ],
)
def test_images_and_bytes_are_scaled_to_0_to_1_by_their_bounds_alone_or_in_a_dict(space):
    obs = np.stack([space.low, space.high, (space.low.astype(float) + space.high) // 2])
    obs = obs.astype(space.dtype)
    want = (obs.astype(np.float32) - space.low) / 255
    assert want.min() == 0 and want.max() == 1
    np.testing.assert_allclose(encode(encoder(space), obs), want.reshape(3, -1), rtol=1e-6)
    got = encode(encoder({"a": VECTOR, "b": space}), {"a": np.zeros((3, 3)), "b": obs})
    np.testing.assert_allclose(got[:, 3:], want.reshape(3, -1), rtol=1e-6)


def test_every_pixel_is_scaled_by_its_own_bounds_and_one_that_never_changes_is_no_division_by_0():
    high = np.arange(8.0).reshape(2, 2, 2)
    got = encode(encoder(Box(0.0, high, (2, 2, 2))), np.float32(high))
    np.testing.assert_allclose(got, [0, 1, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 1, (5, 4, 2), np.uint8),
        Box(-np.inf, np.inf, (5, 4, 2)),
        Box(-3e38, 3e38, (5, 4, 2)),
        Box(0.0, 255.0, (4,)),
    ],
)
def test_boards_numbers_and_images_without_bounds_are_not_scaled(space):
    obs = random_obs(Box(0, 1, space.shape), (2,)).astype(space.dtype)
    got = encode(encoder(space), obs)
    np.testing.assert_array_equal(got, obs.reshape(2, -1).astype(np.float32))


def test_an_image_that_goes_through_convolutions_is_scaled_as_well():
    bytes_, unit = (Box(0, high, (5, 4, 2)) for high in (255.0, 1.0))
    obs = np.random.default_rng(0).uniform(0, 1, (5, 4, 2)).astype(np.float32)
    want = encode(encoder(unit, convolve=True), obs)
    np.testing.assert_allclose(encode(encoder(bytes_, convolve=True), obs * 255), want, rtol=1e-4)
    assert np.ptp(want) > 0.1


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


@pytest.mark.parametrize(("space", "kind"), [(MIXED, "mlp"), (PICTURE, "mlp"), (PICTURE, "cnn")])
def test_every_leaf_of_a_dict_of_observations_reaches_the_value(space, kind):
    policy = make(space, Discrete(2), kind)
    obs = random_obs(space, (4,))
    pi, value = outputs(policy, obs)
    assert pi.logits.shape == (4, 2) and value.shape == (4,)
    for name, part in obs.items():
        other = obs | {name: np.where(part == 0, 1, 0).astype(part.dtype)}
        assert np.max(np.abs(outputs(policy, other)[1] - value)) > 1e-3, name


def test_a_cnn_has_convolutions_for_the_images_of_a_dict_alone():
    tower = make(PICTURE, Discrete(2), "cnn").actor
    assert tower.encoder.size == 3 * 2 * 16 + 3
    assert len(jax.tree.leaves(tower.encoder.parts[0])) == 2
    assert not jax.tree.leaves(tower.encoder.parts[1])
    assert not make(PICTURE, Discrete(2), "mlp").actor.encoder.has_parameters


@pytest.mark.parametrize(
    "space", [VECTOR, Discrete(3), Box(np.eye(8), 255, (8, 8), np.uint8), MIXED]
)
def test_a_cnn_for_what_is_no_image_is_refused_in_one_line_with_a_way_out(space):
    with pytest.raises(ValueError, match=r"^network=cnn needs image observations .* try [^\n]*$"):
        make(space, Discrete(2), "cnn")


@pytest.mark.parametrize("shape", [(17, 30, 1), (35, 84, 3), (2, 9, 1)])
def test_an_image_too_small_for_the_convolutions_is_refused(shape):
    with pytest.raises(ValueError, match=f"not {shape[0]}x{shape[1]}; try network=mlp"):
        make(Box(0, 255, shape, np.uint8), Discrete(2), "cnn")


@pytest.mark.parametrize("space", [TextSpace(4), {}, {"legal": LEGAL}])
def test_observations_without_features_are_refused(space):
    with pytest.raises(ValueError, match=r"^no encoder for observations [^\n]*: use Box"):
        make(space, Discrete(4))


def test_spaces_that_could_not_be_saved_are_refused_before_training():
    with pytest.raises(ValueError, match="neither str nor int"):
        make({(0, 1): VECTOR}, Discrete(2))


def test_a_squashed_choice_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"squash=True needs a Box .* Discrete"):
        make(VECTOR, Discrete(2), squash=True)


@pytest.mark.parametrize("action_space", [Discrete(4), MultiDiscrete((1, 3))])
def test_the_mask_of_an_observation_masks_the_actions_and_is_not_looked_at(action_space):
    policy = make({"legal": LEGAL, "x": VECTOR}, action_space)
    plain = make({"x": VECTOR}, action_space)
    assert jax.tree.map(jnp.shape, policy.actor.hidden) == jax.tree.map(
        jnp.shape, plain.actor.hidden
    )
    obs = {"x": np.ones((2, 3), np.float32), "legal": np.array([[1, 0, 1, 1], [1, 1, 0, 1]], bool)}
    pi, value = outputs(policy, obs)
    assert value[0] == value[1]
    np.testing.assert_array_equal(pi.legal, obs["legal"])
    joint, _ = policy.distribution_and_value(obs)
    np.testing.assert_array_equal(joint.legal, obs["legal"])


@pytest.mark.parametrize(
    ("legal", "action_space"),
    [
        (Box(0.0, 1.0, (4,)), Discrete(4)),
        (LEGAL, Discrete(3)),
        (Discrete(2), Discrete(2)),
        (LEGAL, Box(-1.0, 1.0, (4,))),
    ],
)
def test_an_entry_legal_that_is_no_mask_of_the_actions_is_refused_in_one_line(legal, action_space):
    with pytest.raises(ValueError, match=r"^the observation 'legal' is a mask [^\n]*$"):
        make({"legal": legal, "x": VECTOR}, action_space)


def test_log_std_exists_only_for_a_box_of_actions():
    assert make(VECTOR, Discrete(2)).log_std is None
    assert make(VECTOR, MultiDiscrete((2, 2))).log_std is None
    policy = make(VECTOR, Box(-1.0, 1.0, (4,)))
    pi, _ = outputs(policy, np.zeros((7, 3), np.float32))
    assert pi.mean.shape == (7, 4)
    np.testing.assert_array_equal(pi.log_std, policy.log_std[...])


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
    spec = NetworkSpec(VECTOR, Box(-1.0, 1.0, (5,)), "mlp", (8, 6))
    policy = jit(lambda key: ActorCritic(spec, nnx.Rngs(params=key)))(jax.random.key(0))
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


@pytest.mark.parametrize(
    ("space", "hidden"),
    [(VECTOR, ()), (VECTOR, (8,)), (VECTOR, (8, 4)), (MIXED, (8,)), (Discrete(99), (8,))],
)
def test_the_joint_pass_gives_what_the_two_towers_give(space, hidden):
    policy = make(space, Discrete(2), hidden=hidden)
    obs = random_obs(space, (5,))
    both = jit(lambda policy, obs: networks.distribution_and_value(policy, obs))
    (pi, value), (alone, alone_value) = both(policy, obs), outputs(policy, obs)
    np.testing.assert_allclose(pi.logits, alone.logits, atol=1e-6)
    np.testing.assert_allclose(value, alone_value, atol=1e-6)
    assert np.ptp(value) > 1e-3


@pytest.fixture
def my_module(monkeypatch):
    """A module of the network that the documentation shows."""
    text = (Path(__file__).parent.parent / "docs/networks.md").read_text()
    module: Any = ModuleType("my_module")
    exec(text.split("```python\n")[1].split("```")[0], module.__dict__)
    module.number, module.Nothing = 3, lambda spec, rngs: nnx.Dict()
    monkeypatch.setitem(sys.modules, "my_module", module)


def test_a_class_of_ones_own_is_built_from_the_spec_and_has_a_joint_pass(my_module):
    space = MIXED | {"legal": LEGAL}
    policy = make(space, Discrete(4), "my_module:MyNet")
    obs = random_obs(space, (5,))
    pi, value = jit(networks.distribution_and_value)(policy, obs)
    assert type(policy).__name__ == "MyNet" and pi.logits.shape == (5, 4)
    np.testing.assert_array_equal(pi.legal, obs["legal"])
    np.testing.assert_allclose(value, outputs(policy, obs)[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "transformer",
            r"network=transformer must be mlp, cnn, gru, lstm or my_module:MyNet; try mlp\.",
        ),
        ("no_such:Net", r"network=no_such:Net needs the module no_such, which is not found; add"),
        ("my_module:Net", r"my_module has no class Net\."),
        ("my_module:number", r"my_module has no class number\."),
    ],
)
def test_a_network_that_is_not_found_is_refused_in_one_line(my_module, name, words):
    with pytest.raises(ValueError, match=rf"^[^\n]*{words}[^\n]*$"):
        make(VECTOR, Discrete(2), name)


def test_a_network_without_a_distribution_is_refused(my_module):
    with pytest.raises(ValueError, match=r"needs a method distribution\(obs\)"):
        make(VECTOR, Discrete(2), "my_module:Nothing")


def test_specs_of_equal_dicts_are_one_key_of_the_compiled_program():
    a, b = (NetworkSpec(dict(MIXED), Discrete(2)) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a is not b
    assert a != NetworkSpec(MIXED, Discrete(3))


@pytest.mark.parametrize("joint", [False, True])
def test_a_value_that_is_not_one_number_an_observation_is_refused(joint):
    spec = NetworkSpec(Box(-1.0, 1.0, (2,)), Discrete(2))

    class Column:
        def value(self, obs):
            return obs[:, 0] if joint else obs[:, :1]

        def distribution_and_value(self, obs):
            return None, obs[:, :1]

    name = "distribution_and_value" if joint else "value"
    with pytest.raises(ValueError, match=rf"{name} of 3 observations has the shape \(3, 1\)"):
        networks.check_value(Column(), spec)
    networks.check_value(make(spec.observation_space, spec.action_space), spec)
