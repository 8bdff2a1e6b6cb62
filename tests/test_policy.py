"""A trained policy by itself: saved, loaded back bit by bit, and called on raw observations."""

import json
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from jaxrl import actions, networks
from jaxrl.networks import Encoder, NetworkSpec
from jaxrl.normalize import RunningStats, normalized_space
from jaxrl.policy import Policy, check_saved, load_policies, load_policy, save_policy
from jaxrl.spaces import Box, Discrete, MultiDiscrete, contains

VECTOR = Box(-np.inf, np.inf, (3,))
MIXED = {"grid": Box(0, 9, (2, 2), np.uint8), "image": Box(0, 255, (3, 3, 1)), "kind": Discrete(3)}
GAME = {"legal": Box(False, True, (4,), np.bool_), "x": VECTOR}
BOUNDED = Box(np.float32([-2.0, 0.0]), np.float32([2.0, 1.0]), (2,))
FREE = Box(-np.inf, np.inf, (2,))
HALF = Box(0.0, np.inf, (2, 1))
# observation space, the environment's action space, network, squash, normalised
CASES = {
    "discrete": (VECTOR, Discrete(4), "mlp", False, True),
    "plain": (VECTOR, Discrete(4), "mlp", False, False),
    "mixed": (MIXED, MultiDiscrete((2, 3)), "mlp", False, True),
    "images": (MIXED, Discrete(2), "cnn", False, True),
    "game": (GAME, Discrete(4), "mlp", False, True),
    "bounded": (VECTOR, BOUNDED, "mlp", False, True),
    "squashed": (VECTOR, BOUNDED, "mlp", True, True),
    "free": (VECTOR, FREE, "mlp", False, False),
    "half": (VECTOR, HALF, "mlp", False, False),
    "own": (VECTOR, BOUNDED, "test_policy:Own", False, True),
}
call = jit(lambda policy, obs, key: policy(obs, key))


class Own(nnx.Module):
    """A network without a value, which knows nothing of bounds and noise."""

    def __init__(self, spec, rngs):
        self.spec, self.encoder = spec, Encoder(spec.observation_space, rngs)
        self.layer = nnx.Linear(self.encoder.size, spec.num_outputs, rngs=rngs)

    def distribution(self, obs):
        return self.spec.distribution(self.layer(self.encoder(obs)), obs, jnp.float32(-1.0))


def make(case, num_seeds=2):
    """The policies of a case with random numbers for parameters, leaves [K, ...]."""
    observation_space, action_space, network, squash, normalised = CASES[case]
    scaling = actions.scaling(action_space, squash)
    seen = normalized_space(observation_space) if normalised else observation_space
    drawn = actions.drawn_space(action_space, scaling)
    spec = NetworkSpec(seen, drawn, network, (5,), "relu", squash)
    network = jax.eval_shape(lambda: networks.build(spec, jax.random.key(0)))
    stats = jax.eval_shape(lambda: RunningStats.init_for(observation_space)) if normalised else None
    rng = np.random.default_rng(0)
    draw = lambda low: lambda x: jnp.asarray(rng.uniform(low, 1, (num_seeds, *x.shape)), x.dtype)  # noqa: E731
    network, stats = jax.tree.map(draw(-1), network), jax.tree.map(draw(0.2), stats)
    return Policy(network, stats, spec, action_space, scaling)


def seed(policies, index):
    return jax.tree.map(lambda x: x[index], policies)


def observe(space, batch=()):
    rng = np.random.default_rng(1)
    if isinstance(space, dict):
        return {name: observe(part, batch) for name, part in space.items()}
    if space.dtype == np.bool_:
        return np.broadcast_to(np.arange(space.shape[0]) != 2, (*batch, *space.shape))
    return rng.integers(0, 3, (*batch, *space.shape)).astype(space.dtype)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path):
    """A run folder with a policy in it."""
    save_policy(tmp_path / "policy", make("discrete"))
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_saved_policy_is_loaded_back_bit_by_bit_and_acts_the_same(case, tmp_path):
    policies = make(case)
    save_policy(tmp_path / "policy", policies)
    loaded = load_policies(tmp_path)
    assert jax.tree.structure(loaded) == jax.tree.structure(policies)
    for got, want in zip(jax.tree.leaves(loaded), jax.tree.leaves(policies), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)
    obs = observe(CASES[case][0], (6,))
    one = load_policy(tmp_path / "policy", 1)
    for key in (None, jax.random.key(0)):
        want = call(seed(policies, 1), obs, None if key is None else jax.random.clone(key))
        np.testing.assert_array_equal(call(one, obs, key), want)


class Mine(Discrete):
    """Somebody's own kind of space."""


@pytest.mark.parametrize(
    "space",
    [
        Discrete(np.prod((3, 1))),
        MultiDiscrete(np.array([2, 3])),
        Box(0, 1, tuple(np.array([2])), jnp.bfloat16),
        {0: VECTOR, 1: [VECTOR, (Discrete(2),)]},
        OrderedDict(b=VECTOR, a=VECTOR),
        Mine(3),
        {"\ud800": VECTOR},
    ],
    ids=repr,
)
def test_what_is_saved_at_the_end_is_known_to_load_before_the_first_step(space):
    """For spaces alone; a policy of one that would be another is refused."""
    spec = NetworkSpec(space, Discrete(2), "mlp", (5,), "relu", False)
    network = jax.eval_shape(lambda: networks.build(spec, jax.random.key(0)))
    shapes = Policy(network, None, spec, Discrete(2), "none")
    odd = isinstance(space, Mine) or (isinstance(space, dict) and "\ud800" in space)
    if not odd:
        return check_saved(shapes)
    with pytest.raises(ValueError, match=r"would be loaded as another|half of a surrogate pair"):
        check_saved(shapes)


def test_weights_are_found_by_their_name_in_whatever_order_they_lie(folder):
    path, want = folder / "policy" / "weights.npz", load_policies(folder)
    with np.load(path) as weights:
        reverse = dict(reversed(list(weights.items())))
    np.savez(path, **reverse)
    rewrite(folder / "policy" / "policy.json", digests={})
    for a, b in zip(jax.tree.leaves(load_policies(folder)), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_actions_lie_in_the_environments_space_for_one_observation_and_for_many(case):
    policy = seed(make(case), 0)
    for sampled in (False, True):
        key = jax.random.key(0) if sampled else None
        many = np.asarray(call(policy, observe(CASES[case][0], (50,)), key))
        assert all(contains(policy.action_space, action) for action in many)
        one = call(policy, observe(CASES[case][0]), None if key is None else jax.random.key(1))
        assert one.shape == many.shape[1:] == policy.action_space.shape
        assert one.dtype == many.dtype == policy.action_space.dtype


@pytest.mark.parametrize("case", ["discrete", "squashed"])
def test_a_sampled_action_is_a_function_of_its_key_and_the_mode_of_nothing(case):
    policy, obs = seed(make(case), 0), np.zeros((50, 3), np.float32)
    a, b, c = (np.asarray(call(policy, obs, jax.random.key(i))) for i in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c) and len(np.unique(a)) > 1  # nor do all rows of a batch share one
    mode = np.asarray(call(policy, obs, None))
    np.testing.assert_array_equal(mode, np.broadcast_to(mode[:1], mode.shape))


def test_a_policy_sees_raw_observations_through_its_normaliser():
    policy = seed(make("bounded"), 0)
    obs = observe(VECTOR, (6,))
    stats = policy.obs_stats
    seen = np.clip((obs - stats.mean) / np.sqrt(stats.var), -10, 10)
    bare = policy.replace(obs_stats=None)
    value = jit(lambda policy, obs: policy.value(obs))
    np.testing.assert_allclose(value(policy, obs), value(bare, seen), rtol=1e-5)
    assert np.max(np.abs(value(policy, obs) - value(bare, obs))) > 0.1
    mode = np.asarray(call(policy, obs, None))
    np.testing.assert_allclose(mode, call(bare, seen, None), rtol=1e-4)
    assert np.max(np.abs(mode - call(bare, obs, None))) > 0.1


@pytest.mark.parametrize("case", ["bounded", "squashed", "free"])
def test_continuous_actions_are_squashed_if_asked_and_stretched_to_finite_bounds(case):
    policy = seed(make(case), 0)
    action = np.float32([[0.0, 0.0], [0.5, -0.5], [9.0, -9.0]])
    got = np.asarray(jit(lambda p, a: p.to_env(a))(policy, action))
    unit = np.tanh(action) if case == "squashed" else np.clip(action, -1, 1)
    stretched = np.stack([2 * unit[:, 0], (unit[:, 1] + 1) / 2], -1)
    np.testing.assert_allclose(got, action if case == "free" else stretched, rtol=1e-5, atol=1e-6)


def test_an_illegal_action_is_never_taken():
    policy = seed(make("game"), 0)
    for key in (None, jax.random.key(0)):
        many = np.asarray(call(policy, observe(GAME, (50,)), key))
        assert 2 not in many and (key is None or len(np.unique(many)) == 3)


def test_a_policy_without_its_module_or_from_another_version_is_refused_in_one_line(tmp_path):
    save_policy(tmp_path, make("own"))
    path = tmp_path / "policy.json"
    saved = json.loads(path.read_text())
    assert saved["network"] == "test_policy:Own" and saved["scaling"] == "rescale"
    path.write_text(json.dumps(saved | {"network": "gone:Own"}))
    with pytest.raises(
        ValueError, match=r"^[^\n]*json: network=gone:Own needs the module gone, [^\n]*$"
    ):
        load_policy(tmp_path)
    del saved["scaling"]
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"^[^\n]*policy.json has no field scaling; copy [^\n]*$"):
        load_policy(tmp_path)


def test_a_folder_without_a_policy_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no policy.json: give a finished run's"):
        load_policy(tmp_path)


@pytest.mark.parametrize("index", [-1, 2])
def test_a_seed_that_the_run_does_not_have_is_refused(folder, index):
    with pytest.raises(ValueError, match=rf"seed_index={index} must lie in \[0, 1\]; try 0"):
        load_policy(folder, index)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("hidden", [6], r"not fit .*hidden.* is float32\[2, 5\], not float32\[2, 6\]"),
        ("hidden", [5, 5], "not fit .* missing or extra"),
        ("normalize_obs", False, "not fit .* missing or extra .*obs_stats"),
        ("num_seeds", 3, r"not fit .* is float32\[2, .*not float32\[3, "),
    ],
)
def test_weights_that_do_not_fit_their_description_are_refused(folder, option, value, words):
    path = folder / "policy" / "policy.json"
    rewrite(path, **{option: value})
    with pytest.raises(ValueError, match=words):
        load_policy(folder)


@pytest.mark.parametrize("size", [0, 100, 500])
def test_weights_that_were_cut_short_are_refused_with_their_name(folder, size):
    path = folder / "policy" / "weights.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"weights.npz is damaged"):
        load_policy(folder)


def test_a_policy_without_weights_is_refused_with_the_name_of_what_is_missing(folder):
    (folder / "policy" / "weights.npz").unlink()
    with pytest.raises(ValueError, match=r"weights.npz cannot be read: no such file"):
        load_policy(folder)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    """They play something, and an evaluation of it looks like any other."""
    save_policy(tmp_path, make("discrete"))
    with np.load(tmp_path / "weights.npz") as file:
        weights = dict(file)
    name = next(name for name in weights if weights[name].ndim == 3)
    weights[name][1, 0, 0] = bad
    np.savez(tmp_path / "weights.npz", **weights)
    with pytest.raises(
        ValueError, match=r"weights\.npz: .* holds numbers that are not finite"
    ) as error:
        load_policies(tmp_path)
    assert name in str(error.value)
