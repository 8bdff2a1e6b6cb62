"""Action distributions against SciPy, sums and integrals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from scipy import stats

from jaxrl import distributions
from jaxrl.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian
from jaxrl.spaces import Box, Discrete, MultiDiscrete

LOGITS = np.array([[0.3, -1.2, 2.0, 0.0, -0.4], [0.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
NEVER = -1e9  # the logit of an action that must not be taken

# Methods as one program each: an operation at a time would be compiled one by one.
sample = jit(lambda pi, noise: pi.sample(noise))
log_prob = jit(lambda pi, action: pi.log_prob(action))
entropy = jit(lambda pi: pi.entropy())
mode = jit(lambda pi: pi.mode())


def softmax(logits):
    weight = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def uniform_grid(count):
    """The middles of `count` equal parts of [0, 1)."""
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def test_categorical_samples_have_the_frequencies_of_the_softmax():
    noise = np.broadcast_to(uniform_grid(5000)[:, None], (5000, 2))
    action = np.asarray(sample(Categorical(np.broadcast_to(LOGITS, (5000, 2, 5))), noise))
    assert action.dtype == np.int32 and action.shape == (5000, 2)
    for row in range(2):
        frequency = np.bincount(action[:, row], minlength=5) / 5000
        np.testing.assert_allclose(frequency, softmax(LOGITS[row]), atol=3e-4)


def test_categorical_at_the_ends_of_the_noise_takes_the_first_and_the_last_action():
    largest = np.nextafter(np.float32(1), np.float32(0))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 1000, 5)).astype(np.float32)
    noise = np.stack([np.zeros(1000, np.float32), np.full(1000, largest)])
    np.testing.assert_array_equal(sample(Categorical(logits), noise), [[0] * 1000, [4] * 1000])


def test_categorical_never_takes_an_action_of_probability_zero():
    noise = np.append(uniform_grid(100), np.float32([0.0, np.nextafter(np.float32(1), 0)]))
    logits = np.broadcast_to(np.float32([NEVER, 0.0, NEVER, 1.0, NEVER]), (102, 5))
    assert set(np.asarray(sample(Categorical(logits), noise)).tolist()) == {1, 3}


def test_categorical_log_prob_and_entropy_are_scipys():
    probability = softmax(LOGITS)
    for action in range(5):
        got = log_prob(Categorical(LOGITS), np.full(2, action, np.int32))
        np.testing.assert_allclose(got, np.log(probability[:, action]), rtol=1e-5)
    np.testing.assert_allclose(
        entropy(Categorical(LOGITS)), stats.entropy(probability, axis=1), rtol=1e-5
    )


def test_categorical_stays_finite_with_huge_logits():
    logits = np.float32([[1e4, 0.0, -1e4], [NEVER, 0.0, NEVER]])
    got = log_prob(Categorical(logits), np.array([1, 1], np.int32))
    np.testing.assert_allclose(got, [-1e4, 0.0], rtol=1e-5)
    np.testing.assert_allclose(entropy(Categorical(logits)), [0.0, 0.0], atol=1e-6)


def test_categorical_mode_is_the_likeliest_action():
    np.testing.assert_array_equal(mode(Categorical(LOGITS)), [2, 0])


MANY = (2, 3, 18, 33, 1000)  # both ways to add up the CDF


@pytest.mark.parametrize("count", MANY)
def test_an_illegal_action_is_never_sampled_however_peaked_the_logits(count):
    """A million draws, fewer of a thousand actions, the ends of the noise among them."""
    rows, draws = 200, 5000 if count < 100 else 1000
    rng = np.random.default_rng(count)
    logits = rng.normal(0, rng.choice([0.1, 1.0, 30.0], (rows, 1)), (rows, count))
    legal = rng.uniform(size=(rows, count)) < rng.choice([0.02, 0.5, 0.9], (rows, 1))
    legal[np.arange(rows), rng.integers(0, count, rows)] = True
    logits = np.where(legal, logits, logits + 100).astype(np.float32)  # wanted, but illegal
    ends = np.broadcast_to(np.float32([0.0, 1 - 2.0**-24]), (rows, 2))
    noise = np.concatenate([ends, rng.uniform(size=(rows, draws)).astype(np.float32)], -1)
    noise = np.minimum(noise, np.float32(1 - 2.0**-24))

    def draw(logits, legal, noise):
        one = Categorical(logits, legal)
        return jax.lax.map(lambda u: one.sample(u), noise.T).T

    action = np.asarray(jit(draw)(logits, legal, noise))
    assert action.dtype == np.int32 and np.all(np.take_along_axis(legal, action, 1))
    likely = np.argmax(np.where(legal, logits, -np.inf), -1)
    assert np.any(action == likely[:, None])


def test_legal_actions_are_sampled_with_the_frequencies_of_the_softmax_over_them():
    legal = np.array([True, False, True, True, False])
    shape = (5000, 5)
    pi = Categorical(np.broadcast_to(LOGITS[0], shape), np.broadcast_to(legal, shape))
    frequency = np.bincount(sample(pi, uniform_grid(5000)), minlength=5) / 5000
    np.testing.assert_allclose(frequency[legal], softmax(LOGITS[0][legal]), atol=3e-4)


def test_a_long_categorical_has_the_frequencies_of_its_softmax():
    logits = np.random.default_rng(0).normal(0, 2, 100).astype(np.float32)
    pi = Categorical(np.broadcast_to(logits, (20_000, 100)))
    frequency = np.bincount(sample(pi, uniform_grid(20_000)), minlength=100) / 20_000
    np.testing.assert_allclose(frequency, softmax(logits), atol=1e-4)


def test_sampling_needs_no_array_of_the_square_of_the_actions():
    shape = jax.ShapeDtypeStruct((7, 3000), np.float32)
    text = jax.make_jaxpr(lambda x, u: Categorical(x).sample(u))(shape, np.zeros(7, np.float32))
    assert "3000,3000" not in str(text) and "f32[7,3000]" in str(text)


def test_masked_log_prob_mode_and_entropy_are_those_of_the_legal_actions_alone():
    legal = np.array([[1, 0, 0, 1, 1], [0, 1, 1, 0, 1]], bool)
    pi = Categorical(LOGITS, legal)
    for row in range(2):
        kept = np.flatnonzero(legal[row])
        probability = softmax(LOGITS[row, kept])
        for action, p in zip(kept, probability, strict=True):
            got = log_prob(pi, np.full(2, action, np.int32))[row]
            np.testing.assert_allclose(got, np.log(p), rtol=1e-5)
        np.testing.assert_allclose(entropy(pi)[row], stats.entropy(probability), rtol=1e-5)
        assert mode(pi)[row] == kept[np.argmax(probability)]
    np.testing.assert_array_equal(log_prob(pi, np.array([2, 0], np.int32)), [-np.inf] * 2)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_gradients_of_masked_distributions_are_finite_and_0_for_illegal_actions(scale):
    legal = np.array([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0]], bool)
    action = np.array([3, 2], np.int32)
    of_entropy = jax.grad(lambda x: jnp.sum(Categorical(x, legal).entropy()))
    of_log_prob = jax.grad(lambda x: jnp.sum(Categorical(x, legal).log_prob(action)))
    for gradient in jit(lambda x: (of_entropy(x), of_log_prob(x)))(LOGITS * scale):
        assert np.all(np.isfinite(gradient)) and not np.any(gradient[~legal])
        assert scale > 1 or np.any(gradient[0])
    assert np.all(np.isfinite(entropy(Categorical(LOGITS * scale, legal))))


def test_where_nothing_is_legal_everything_is():
    nothing = Categorical(LOGITS, np.zeros((2, 5), bool))
    np.testing.assert_array_equal(entropy(nothing), entropy(Categorical(LOGITS)))
    noise = np.float32([0.1, 0.9])
    np.testing.assert_array_equal(sample(nothing, noise), sample(Categorical(LOGITS), noise))


def test_the_mask_of_independent_choices_holds_one_block_for_each():
    legal = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 1, 0]], bool)
    pi, parts = MultiCategorical(LOGITS, (2, 3), legal), (slice(0, 2), slice(2, 5))
    alone = [Categorical(LOGITS[:, part], legal[:, part]) for part in parts]
    action = np.array([[1, 2], [0, 1]], np.int32)
    want = sum(log_prob(a, action[:, i]) for i, a in enumerate(alone))
    np.testing.assert_allclose(log_prob(pi, action), want, rtol=1e-6)
    np.testing.assert_allclose(entropy(pi), sum(map(entropy, alone)), rtol=1e-6)
    np.testing.assert_array_equal(mode(pi), np.stack([mode(a) for a in alone], -1))
    for u in (0.0, 0.5, 1 - 2.0**-24):
        got = np.asarray(sample(pi, np.full((2, 2), u, np.float32)))
        assert legal[np.arange(2), got[:, 0]].all() and legal[np.arange(2), 2 + got[:, 1]].all()


def test_multi_categorical_is_independent_choices_one_block_of_logits_each():
    pi = MultiCategorical(LOGITS, (2, 3))
    parts = [softmax(LOGITS[:, :2]), softmax(LOGITS[:, 2:])]
    action = np.array([[1, 2], [0, 1]], np.int32)
    expected = sum(np.log(p[[0, 1], action[:, i]]) for i, p in enumerate(parts))
    np.testing.assert_allclose(log_prob(pi, action), expected, rtol=1e-5)
    expected = sum(stats.entropy(p, axis=1) for p in parts)
    np.testing.assert_allclose(entropy(pi), expected, rtol=1e-5)
    np.testing.assert_array_equal(mode(pi), [[0, 0], [0, 0]])
    assert mode(pi).dtype == jnp.int32


def test_multi_categorical_samples_have_the_joint_frequencies():
    pi = MultiCategorical(np.broadcast_to(LOGITS[0], (6400, 5)), (2, 3))
    first, second = np.meshgrid(uniform_grid(80), uniform_grid(80))
    action = np.asarray(sample(pi, np.stack([first.ravel(), second.ravel()], -1)))
    assert action.dtype == np.int32 and action.shape == (6400, 2)
    joint = np.zeros((2, 3))
    np.add.at(joint, (action[:, 0], action[:, 1]), 1 / 6400)
    expected = np.outer(softmax(LOGITS[0, :2]), softmax(LOGITS[0, 2:]))
    np.testing.assert_allclose(joint, expected, atol=0.02)


MEAN = np.array([[0.3, -1.0], [0.0, 2.0]], np.float32)
LOG_STD = np.array([-0.7, 0.4], np.float32)  # broadcast over the batch


def test_gaussian_log_prob_and_entropy_are_scipys_summed_over_the_action():
    action = np.array([[0.0, -1.5], [1.0, 1.0]], np.float32)
    expected = stats.norm.logpdf(action, MEAN, np.exp(LOG_STD)).sum(-1)
    np.testing.assert_allclose(log_prob(Gaussian(MEAN, LOG_STD), action), expected, rtol=1e-5)
    expected = np.broadcast_to(stats.norm.entropy(MEAN, np.exp(LOG_STD)).sum(-1), 2)
    np.testing.assert_allclose(entropy(Gaussian(MEAN, LOG_STD)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [Gaussian, TanhGaussian])
def test_gaussian_samples_are_the_quantiles_of_normal_noise(kind):
    noise = stats.norm.ppf(uniform_grid(100))[:, None, None].astype(np.float32)
    pi = kind(np.broadcast_to(MEAN, (100, 2, 2)), LOG_STD)
    got = sample(pi, np.broadcast_to(noise, (100, 2, 2)))
    quantile = uniform_grid(100)[:, None, None]
    expected = stats.norm.ppf(quantile, MEAN, np.exp(LOG_STD))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(mode(kind(MEAN, LOG_STD)), MEAN)


def normal_pairs():
    """(mean, std) of one-dimensional squashed normals, narrow and wide, centred and not."""
    return [(0.0, 1.0), (0.5, 0.3), (-1.5, 0.5), (0.0, 2.0), (1.0, 0.05)]


@pytest.mark.parametrize(("mean", "std"), normal_pairs())
def test_the_density_of_a_squashed_action_integrates_to_one_and_to_the_entropy(mean, std):
    """Over tanh(action) in (-1, 1), by the trapezoid rule."""
    before = np.linspace(mean - 8 * std, mean + 8 * std, 4001)
    after = np.tanh(before)
    pi = TanhGaussian(np.full((4001, 1), mean, np.float32), np.log(np.float32([std])))
    density = np.exp(np.asarray(log_prob(pi, before[:, None].astype(np.float32)), np.float64))
    np.testing.assert_allclose(np.trapezoid(density, after), 1.0, atol=2e-3)
    expected = -np.trapezoid(density * np.log(np.maximum(density, 1e-30)), after)
    np.testing.assert_allclose(entropy(pi)[0], expected, atol=0.02)


def test_the_squashed_log_prob_adds_up_over_the_action_and_stays_finite_far_out():
    action = np.array([[20.0, -30.0]], np.float32)  # tanh of both rounds to +-1
    slope = 2 * (np.log(2) - np.abs(action))  # log(1 - tanh^2) to within exp(-40)
    expected = (stats.norm.logpdf(action, MEAN[0], np.exp(LOG_STD)) - slope).sum(-1)
    got = log_prob(TanhGaussian(MEAN[:1], LOG_STD), action)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("space", "outputs", "shape"),
    [
        (Discrete(3), 3, ()),
        (MultiDiscrete((2, 3)), 5, (2,)),
        (Box(-1.0, 1.0, (4,)), 4, (4,)),
    ],
)
def test_a_space_says_how_many_outputs_and_how_much_noise_its_actions_need(space, outputs, shape):
    assert distributions.num_outputs(space) == outputs
    noise = np.asarray(distributions.noise(space, jax.random.key(0), (500, 2)))
    assert noise.shape == (500, 2, *shape) and len(np.unique(noise)) > 0.99 * noise.size
    cdf = stats.norm.cdf if isinstance(space, Box) else stats.uniform.cdf
    assert stats.kstest(noise.ravel(), cdf).pvalue > 1e-3
    pi = distributions.make(space, np.zeros((500, 2, outputs), np.float32), LOG_STD[:1])
    action = sample(pi, noise)
    assert action.shape == (500, 2, *shape) and log_prob(pi, action).shape == (500, 2)
    assert entropy(pi).shape == (500, 2)


@pytest.mark.parametrize(
    ("space", "squash", "kind"),
    [
        (Discrete(5), False, Categorical),
        (MultiDiscrete((2, 3)), False, MultiCategorical),
        (Box(-1.0, 1.0, (5,)), False, Gaussian),
        (Box(-1.0, 1.0, (5,)), True, TanhGaussian),
    ],
)
def test_each_space_has_its_distribution(space, squash, kind):
    assert type(distributions.make(space, LOGITS, LOG_STD[:1], squash)) is kind


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (4,), np.uint8),
        Box(-1.0, 1.0, (2, 2)),
        Box(-1.0, 1.0, ()),
        {"a": Discrete(2)},
        (Discrete(2), Discrete(3)),
    ],
)
def test_an_action_space_without_a_distribution_is_refused_with_a_way_out(space):
    with pytest.raises(
        ValueError, match=r"(?s)no distribution for the action space .* use Discrete"
    ):
        distributions.num_outputs(space)


def test_kl_is_the_mean_log_ratio_over_what_the_first_draws():
    kl = jit(lambda p, q: p.kl(q))
    p, q = LOGITS, LOGITS[::-1].copy()
    expected = stats.entropy(softmax(p), softmax(q), axis=1)
    np.testing.assert_allclose(kl(Categorical(p), Categorical(q)), expected, rtol=1e-5)
    legal = np.array([[1, 1, 0, 1, 0], [0, 0, 1, 0, 1]], bool)
    may_p, may_q = (softmax(np.where(legal, x, -np.inf)) for x in (p, q))
    masked = kl(Categorical(p, legal), Categorical(q, legal))
    np.testing.assert_allclose(masked, stats.entropy(may_p, may_q, axis=1), rtol=1e-5)
    slope = jit(jax.grad(lambda p: jnp.sum(Categorical(p, legal).kl(Categorical(q, legal)))))(p)
    assert np.all(np.isfinite(slope)) and np.all(slope[~legal] == 0) and np.any(slope != 0)
    both = [MultiCategorical(x, (2, 3)) for x in (p, q)]
    parts = [
        stats.entropy(softmax(p[:, s]), softmax(q[:, s]), axis=1) for s in (np.s_[:2], np.s_[2:])
    ]
    np.testing.assert_allclose(kl(*both), sum(parts), rtol=1e-4)

    x = np.linspace(-30, 30, 60001)
    one, other = stats.norm(0.5, np.exp(-0.3)), stats.norm(-0.2, np.exp(0.4))
    density = one.pdf(x) * (one.logpdf(x) - other.logpdf(x))
    normals = [(np.float32([[m]]), np.float32([s])) for m, s in ((0.5, -0.3), (-0.2, 0.4))]
    for kind in (Gaussian, TanhGaussian):
        found = kl(*(kind(*parameters) for parameters in normals))
        np.testing.assert_allclose(found, [np.trapezoid(density, x)], rtol=1e-4)
