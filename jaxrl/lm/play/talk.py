"""One conversation with a model, token by token: what was read stays in its cache."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.model.cache import Cache, init_cache
from jaxrl.lm.model.transformer import Transformer, forward, logits, unstack
from jaxrl.lm.play.sample import draw, token_keys

SHORT, LONG = 32, 256  # tokens that are read at once, by a compiled program each
FIRST = 256  # tokens that a cache has room for at first: a step reads all of it, so it is doubled


class Full(ValueError):
    """The conversation has outgrown the cache."""


class Talk:
    """A conversation of a user and a model, which has read all that was said so far."""

    def __init__(
        self,
        model: Transformer,
        host: HostChat,
        *,
        context: int,
        temperature: float | None,
        seed: int = 0,
    ):
        self.model = jax.device_put(unstack(model))
        self.host = host
        self.context, self.temperature = context, temperature
        self.seed, self.conversation = seed, -1
        self.ends = {host.chat.end_of_turn, *model.cfg.end_ids}
        self._read = jax.jit(self._read_chunk, donate_argnums=1)
        self.reset()

    def reset(self) -> None:
        """Forget all that was said; what is drawn from now on is drawn anew."""
        self.conversation += 1
        self.key = jax.random.fold_in(jax.random.key(self.seed), self.conversation)
        self.cache = init_cache(self.model.cfg, 1, min(FIRST, self.context))
        self.length = 0
        self.next = np.zeros(1, np.int32)  # the token that the model would say now

    def say(self, text: str) -> None:
        """Read a user's text up to the response; Full where it does not fit, and nothing is read.

        A response that was stopped ends here.
        """
        if self.length:
            end = self.host.chat.end_of_turn
            tokens = [end, *self.host.user(self.host.chat.next_piece, text)]
        else:
            tokens = self.host.user(self.host.chat.first_piece, text)
        if self.length + len(tokens) >= self.context:
            raise Full(
                f"the conversation would have {self.length + len(tokens)} tokens, where "
                f"context={self.context}"
            )
        self._take(tokens)

    def hear(self, response: Sequence[int]) -> None:
        """Read a response that was given before, or by another, without the token that ends it."""
        self._take(response)

    def reply(self, most: int) -> Iterator[int]:
        """The tokens of a response, at most so many, without the one that ends it."""
        for _ in range(min(most, self.context - self.length - 1)):
            token = int(self.next[0])
            if token in self.ends:
                return
            self._take([token])
            yield token

    @property
    def ended(self) -> bool:
        """Whether the response is over by the model's will."""
        return int(self.next[0]) in self.ends

    def _take(self, tokens: Sequence[int]) -> None:
        while tokens:
            size = 1 if len(tokens) == 1 else SHORT if len(tokens) < LONG else LONG
            chunk, tokens = tokens[:size], tokens[size:]
            padded = np.zeros((1, size), np.int32)
            padded[0, : len(chunk)] = chunk
            length = np.full(1, len(chunk), np.int32)
            self._make_room(self.length + len(chunk))
            self.next, self.cache = self._read(self.model, self.cache, padded, length, self.key)
            self.length += len(chunk)

    def _make_room(self, needed: int) -> None:
        cache, capacity = self.cache, self.cache.capacity
        if needed <= capacity:
            return
        while capacity < needed:
            capacity = min(2 * capacity, self.context)
        more = (0, capacity - cache.capacity)
        k = tuple(jnp.pad(x, ((0, 0), (0, 0), (0, 0), more)) for x in cache.k)
        v = tuple(jnp.pad(x, ((0, 0), (0, 0), more, (0, 0))) for x in cache.v)
        self.cache = cache.replace(k=k, v=v)

    def _read_chunk(
        self,
        model: Transformer,
        cache: Cache,
        tokens: jax.Array,
        length: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Cache]:
        """The token [1] that is drawn after `length` of these, and the cache with them."""
        hidden, cache = forward(model, tokens, length, cache)
        last = jnp.take_along_axis(hidden, length[:, None, None] - 1, 1)[:, 0]
        keys = token_keys(key, jnp.zeros(1, jnp.int32), cache.length)
        return draw(logits(model, last), keys, self.temperature).token, cache
