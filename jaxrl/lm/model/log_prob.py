"""Log-probabilities of given tokens, without ever holding the logits of a whole batch."""

import jax
import jax.numpy as jnp

from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.transformer import Transformer, logits, read, read_after, unstack


def hidden_states(model: Transformer, token: jax.Array, remat: bool = False) -> jax.Array:
    """[N, C-1, D]: after each of the tokens 0 .. C-2 of sequences [N, C].

    With `remat` the backward pass computes each layer again, in a loop over the stacked layers.
    Without it they are taken apart: such a loop would copy what the backward pass needs.
    """
    return read(model if remat else unstack(model), token[:, :-1], remat=remat)


def hidden_after(
    model: Transformer, prompt: jax.Array, length: jax.Array, rest: jax.Array, remat: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Hidden states of `read_after`, the layers taken apart or not as `hidden_states` does."""
    return read_after(model if remat else unstack(model), prompt, length, rest, remat=remat)


LOGITS = 2**27  # bytes
MOST_TOKENS = 4096  # with a small vocabulary, so that a CPU's cache holds their logits


def tokens_at_once(cfg: ModelConfig) -> int:
    """Tokens whose float32 logits fill LOGITS bytes, or MOST_TOKENS."""
    return min(max(LOGITS // (4 * cfg.vocab_size), 1), MOST_TOKENS)


def token_log_prob(
    model: Transformer,
    hidden: jax.Array,
    target: jax.Array,
    chunk: int,
    temperature: float | jax.Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """log pi(target[b, s] | hidden[b, s]) and the entropy of pi, both float32 [B, S].

    Logits exist for `chunk` tokens at a time, in the backward pass too; for 0 as many as LOGITS
    bytes hold.
    """
    num = target.size
    chunk = min(chunk or tokens_at_once(model.cfg), num)
    padding = -num % chunk
    hidden = jnp.pad(hidden.reshape(num, -1), ((0, padding), (0, 0)))
    flat = jnp.pad(target.reshape(num), (0, padding))

    def one_chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return log_prob_and_entropy(logits(model, part[0]) / temperature, part[1])

    parts = (hidden.reshape(-1, chunk, hidden.shape[-1]), flat.reshape(-1, chunk))
    alone = num <= chunk  # what the backward pass needs then may stay
    log_prob, entropy = jax.lax.map(one_chunk if alone else jax.checkpoint(one_chunk), parts)
    shape = target.shape
    return log_prob.reshape(-1)[:num].reshape(shape), entropy.reshape(-1)[:num].reshape(shape)


def log_prob_and_entropy(logit: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 [...] each, from logits [..., V] with the temperature already in and target [...]."""
    log_p = jax.nn.log_softmax(logit)
    log_prob = jnp.take_along_axis(log_p, target[..., None], -1)[..., 0]
    return log_prob, -jnp.sum(jnp.exp(log_p) * log_p, -1)
