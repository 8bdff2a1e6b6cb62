"""How many tokens the questions of a fixed list take: all are known before a run begins."""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import config
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.options import PlayConfig
from jaxrl.text import Chat

BATCH = 256  # rows encoded at once

C = TypeVar("C", bound=PlayConfig)


def with_rows(env: LanguageEnvironment, chat: Chat, cfg: C) -> C:
    """The options with room for the longest row of the list and of what is held out from it.

    ValueError, with the row, where less was asked for and what is not read stops a run.
    """
    tokens, name = longest_row(env, chat)
    if not 0 < cfg.prompt_tokens < tokens:
        return config.with_values(cfg, prompt_tokens=tokens) if tokens else cfg
    if cfg.unread == "stop":
        raise ValueError(
            f"prompt_tokens={cfg.prompt_tokens} is too short for {name}: its prompt has {tokens} "
            f"tokens; try --algo.prompt-tokens {tokens}, or leave it out."
        )
    return cfg


def longest_row(env: LanguageEnvironment, chat: Chat) -> tuple[int, str]:
    """The most tokens of a first observation, and its row; (0, "") where there are no rows."""
    parts = [env] if env.held_out is env else [env, env.held_out]
    found = [(*_longest(part, chat), part) for part in parts]
    tokens, row, part = max(found, key=lambda one: one[0])
    return tokens, part.row_name(row) if tokens else ""


def _longest(env: LanguageEnvironment, chat: Chat) -> tuple[int, int]:
    """(tokens, row). A token has a byte at least: shorter rows than that are not encoded."""
    if not env.num_rows:
        return 0, 0

    def first(row):
        return env.reset_row(row, jax.random.key(0))[1].obs

    sizes = np.asarray(jax.jit(jax.vmap(lambda row: first(row).length))(jnp.arange(env.num_rows)))

    @partial(jax.jit, static_argnums=1)
    def count(rows, room):
        def one(row):
            text = first(row)
            text = text.replace(bytes=text.bytes[:room])
            return chat.first(text, room + chat.overhead).length

        return jax.vmap(one)(rows)

    best, order = (0, 0), np.argsort(-sizes, kind="stable")
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        if sizes[rows[0]] + chat.overhead <= best[0]:
            break
        room = min(1 << int(sizes[rows[0]] - 1).bit_length(), env.observation_space.capacity)
        tokens = np.asarray(count(jnp.asarray(np.resize(rows, BATCH), jnp.int32), room))
        most = int(np.argmax(tokens[: len(rows)]))
        best = max(best, (int(tokens[most]), int(rows[most])), key=lambda one: one[0])
    return best
