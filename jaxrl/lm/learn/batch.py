"""What is learned from: sequences of tokens, which of them count, what a model makes of them."""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl import losses, objectives
from jaxrl.env import per_env_keys
from jaxrl.lm.learn.options import AgentConfig, GroupConfig, MinibatchConfig
from jaxrl.lm.model.log_prob import hidden_after, hidden_states, token_log_prob
from jaxrl.lm.model.params import Critic, Params
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.episodes import Episodes
from jaxrl.metrics import Metrics, Sums, mean


class Sequences(flax.struct.PyTreeNode, kw_only=True):
    """N sequences. Columns 0 .. C-2 of what has C-1 of them belong to the tokens 1 .. C-1."""

    token: jax.Array  # int32 [N, C]
    mask: jax.Array  # bool [N, C-1]: the policy drew the token, and learns from it
    start: jax.Array  # int32 [N]: tokens of the prompt, which a group has in common
    first: int = flax.struct.field(pytree_node=False)  # most tokens of a prompt, F

    def judged(self, sampled_log_prob: jax.Array, advantage: jax.Array) -> "TokenBatch":
        """With what each token [N, C-1] was worth."""
        return TokenBatch(**vars(self), sampled_log_prob=sampled_log_prob, advantage=advantage)


class TokenBatch(Sequences, kw_only=True):
    """What an algorithm learns from."""

    sampled_log_prob: jax.Array  # float32 [N, C-1]: by the sampler
    advantage: jax.Array  # float32 [N, C-1]
    log_prob: jax.Array | None = None  # float32 [N, C-1]: by the learner; None: on-policy
    ref_log_prob: jax.Array | None = None  # float32 [N, C-1]: under the reference, if there is one


class Prediction(NamedTuple):
    """Of the tokens 1 .. C-1, each given those before it."""

    log_prob: jax.Array  # float32 [N, C-1]
    entropy: jax.Array  # float32 [N, C-1]: of the distribution that the token is of
    value: jax.Array | None = None  # float32 [N, C-1]: by a critic, before the token


@jax.named_scope("learner")
def predict(
    model: Transformer,
    token: jax.Array,
    mask: jax.Array | None,
    cfg: AgentConfig,
    temperature: float | jax.Array | None = None,
) -> Prediction:
    """What a model makes of sequences [N, C], by default at the temperature of playing.

    Outside a mask log-prob and entropy are 0, before anything is computed from them: a prompt's
    token may be as unlikely as can be, and e to that power infinite.
    """
    hidden = hidden_states(model, token, cfg.remat)
    at = cfg.temperature if temperature is None else temperature
    log_prob, entropy = token_log_prob(model, hidden, token[:, 1:], cfg.chunk, at)
    if mask is not None:
        log_prob, entropy = jnp.where(mask, log_prob, 0.0), jnp.where(mask, entropy, 0.0)
    return Prediction(log_prob, entropy)


def predict_responses(
    model: Transformer, rows: Sequences, cfg: GroupConfig, critic: Critic | None = None
) -> Prediction:
    """What a model makes of the tokens after the prompts; log-prob and entropy 0 elsewhere."""
    log_prob, entropy, value = after_prompts(model, rows, cfg, critic)
    log_prob, entropy = (jnp.where(rows.mask, x, 0.0) for x in (log_prob, entropy))
    return Prediction(log_prob, entropy, value)


@jax.named_scope("learner")
def after_prompts(
    model: Transformer, rows: Sequences, cfg: GroupConfig, critic: Critic | None
) -> Prediction:
    """Prompts are read once for the rows of a group that lie side by side, without logits."""
    before, rest, in_place = before_responses(model, rows, cfg.prompt_shared_by, cfg.remat)
    log_prob, entropy = token_log_prob(model, before, rest, cfg.chunk, cfg.temperature)
    value = None if critic is None else in_place(critic(before))
    return Prediction(in_place(log_prob), in_place(entropy), value)


def before_responses(
    model: Transformer, rows: Sequences, share: int, remat: bool
) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array]]:
    """(hidden state [N, S, D] before each of the S tokens after a prompt, these tokens [N, S], ..).

    And what puts numbers [N, S] where these tokens stand [N, C-1], 0 elsewhere. `share` rows that
    lie side by side begin with the same prompt.
    """
    assert rows.first > 0, "the room for a prompt is not known"
    num, context = rows.token.shape
    size = context - rows.first  # no episode says more after it
    place = rows.start[:, None] + jnp.arange(size, dtype=jnp.int32)
    rest = jnp.take_along_axis(rows.token, place, 1, mode="clip")
    prompt, length = rows.token[::share, : rows.first], rows.start[::share]
    hidden, later = hidden_after(model, prompt, length, rest[:, :-1], remat)
    last = jnp.take_along_axis(hidden, jnp.maximum(length - 1, 0)[:, None, None], 1)
    before = jnp.concatenate([jnp.repeat(last, share, 0), later], 1)  # [N, S, D]
    row = jnp.arange(num, dtype=jnp.int32)[:, None]
    column = jnp.where(place > 0, place - 1, context)  # beyond the last: dropped

    def in_place(x: jax.Array) -> jax.Array:
        return jnp.zeros((num, context - 1), x.dtype).at[row, column].set(x, mode="drop")

    return before, rest, in_place


@jax.named_scope("critic")
def values(model: Params, rows: Sequences, share: int, remat: bool) -> jax.Array:
    """float32 [N, C-1]: of a critic with layers of its own, before each token after the prompt."""
    assert isinstance(model.critic, Critic)
    before, _, in_place = before_responses(model.policy, rows, share, remat)
    return in_place(model.critic(before))


def score_of(
    model: Params, rows: Sequences, length: jax.Array, share: int, remat: bool
) -> jax.Array:
    """float32 [N]: of a reward model, after the last token of rows with these lengths [N]."""
    wider = rows.replace(  # or nothing would be read after the last token of the longest
        token=jnp.pad(rows.token, ((0, 0), (0, 1))), mask=jnp.pad(rows.mask, ((0, 0), (0, 1)))
    )
    value = values(model, wider, share, remat)
    return jnp.take_along_axis(value, length[:, None] - 1, 1)[:, 0]


def learned_from(episodes: Episodes, cfg: GroupConfig) -> tuple[Sequences, jax.Array]:
    """The sequences with what is learned of them, and the turn [N, C-1] of each token."""
    mask, turn = episodes.action[:, 1:], episodes.turn[:, 1:]
    if cfg.overlong == "mask":
        mask = objectives.without_cut(mask, turn, episodes.cut)
    rows = Sequences(
        token=episodes.token,
        mask=without_unread(mask, episodes, cfg),
        start=episodes.start,
        first=episodes.first,
    )
    return rows, turn


def without_unread(mask: jax.Array, episodes: Episodes, cfg: AgentConfig) -> jax.Array:
    """A mask [N, C-1] without episodes in which something was not read, if so wanted.

    And without those that the host has masked.
    """
    mask = mask if cfg.unread == "stop" else mask & ~episodes.unread[:, None]
    return mask if episodes.masked is None else mask & ~episodes.masked[:, None]


def learned_reward(episodes: Episodes, cfg: GroupConfig) -> jax.Array:
    """float32 [N, U]: 1 less for a response that the length limit cut, if it is to be penalised."""
    return episodes.reward - episodes.cut if cfg.overlong == "penalise" else episodes.reward


def idle(
    batch: TokenBatch, cfg: AgentConfig, mean: Callable[..., Sums] = objectives.token_mean
) -> tuple[jax.Array, Sums]:
    """Whether rows have no gradient, as groups with equal rewards have none, and their loss then.

    Where nothing is in the loss but the policy gradient, and all its advantages are 0.
    """
    still = ~jnp.any(batch.mask & (batch.advantage != 0)) & (cfg.entropy_coef == 0)
    return still, mean(jnp.zeros_like(batch.advantage), batch.mask)


def response_log_prob(policy: Transformer, rows: Sequences, cfg: GroupConfig) -> jax.Array:
    """float32 [N]: of each whole response."""
    predicted = predict_responses(policy, rows, cfg)
    return objectives.sequence_log_prob(predicted.log_prob, rows.mask)


def response_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """float32 [N]: the mean of [N, C-1] over each response's tokens; 0 where it has none."""
    length = jnp.maximum(jnp.sum(mask, 1, dtype=jnp.float32), 1.0)
    return objectives.sequence_log_prob(x, mask) / length


def token_means(mask: jax.Array, **tokens: jax.Array) -> Metrics:
    """Of each of these arrays [N, C-1] over the tokens that the mask keeps."""
    return {name: mean(x, mask) for name, x in tokens.items()}


def ratio_metrics(
    batch: TokenBatch,
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    log_ratio: jax.Array,
    cfg: MinibatchConfig,
) -> Metrics:
    """How far the policy has moved from the one that played, and sampler and learner differ."""
    clipped = losses.outside_clip(log_ratio, batch.advantage, cfg.clip_low, cfg.clip_high)
    return token_means(
        batch.mask,
        approx_kl=losses.approx_kl(log_prob, old_log_prob),
        clip_fraction=clipped,
        ratio_error=jnp.abs(jnp.expm1(log_ratio)),
        log_prob_gap=jnp.abs(old_log_prob - batch.sampled_log_prob),
    )


def shuffled(
    key: jax.Array,
    prompt_index: jax.Array,
    num_epochs: int,
    num_minibatches: int,
    group_size: int = 1,
) -> jax.Array:
    """int32 [epochs * minibatches, episodes]: which of this device's episodes each step takes.

    Of every `num_minibatches` prompts in a row each minibatch gets one, at random and with its
    whole group: a function of (key, epoch, global prompt) alone, on any number of devices.
    """
    size = num_minibatches
    start = jnp.arange(0, prompt_index.shape[0], size, dtype=jnp.int32)
    block_keys = per_env_keys(key, prompt_index[::size] // size)
    places = jnp.arange(size, dtype=jnp.int32)

    def epoch(e):
        order = jax.vmap(lambda k: jax.random.permutation(jax.random.fold_in(k, e), places))
        return (order(block_keys) + start[:, None]).T  # [minibatches, blocks]

    epochs = jnp.arange(num_epochs, dtype=jnp.int32)
    prompt = jax.vmap(epoch)(epochs).reshape(num_epochs * size, -1)
    rows = prompt[..., None] * group_size + jnp.arange(group_size, dtype=jnp.int32)
    return rows.reshape(rows.shape[0], -1)


def drawn(key: jax.Array, index: jax.Array, total: int, size: int = 1) -> jax.Array:
    """int32 [n * size]: for each global index a group of `size` rows that lie side by side.

    Of `total` such groups one each, with replacement, by (key, global index).
    """
    group = jax.vmap(lambda k: jax.random.randint(k, (), 0, total, jnp.int32))(
        per_env_keys(key, index)
    )
    return (group[:, None] * size + jnp.arange(size, dtype=jnp.int32)).reshape(-1)
