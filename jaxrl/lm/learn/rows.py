"""How many tokens the questions of a fixed list take: all are known before a run begins."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxrl import config
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.options import PlayConfig

C = TypeVar("C", bound=PlayConfig)


def with_rows(env: LanguageEnvironment, tokenizer: ChatTokenizer, cfg: C) -> C:
    """The options with room for the longest row of the list and of what is held out from it.

    ValueError, with the row, where less was asked for and what is not read stops a run.
    """
    tokens, name = longest_row(env, tokenizer)
    if not 0 < cfg.prompt_tokens < tokens:
        return config.with_values(cfg, prompt_tokens=tokens) if tokens else cfg
    if cfg.unread == "stop":
        raise ValueError(
            f"prompt_tokens={cfg.prompt_tokens} is too short for {name}: its prompt has {tokens} "
            f"tokens; try --algo.prompt-tokens {tokens}, or leave it out."
        )
    return cfg


def longest_row(env: LanguageEnvironment, tokenizer: ChatTokenizer) -> tuple[int, str]:
    """The most tokens of a first observation, and its row; (0, "") where there are no rows.

    Counted on the host, where thousands take a second or two.
    """
    if not env.num_rows:
        return 0, ""
    host, found = HostChat(tokenizer), []
    for part in [env] if env.held_out is env else [env, env.held_out]:
        first = jax.jit(jax.vmap(lambda row, of=part: of.reset_row(row, jax.random.key(0))[1].obs))
        text = jax.device_get(first(jnp.arange(part.num_rows)))
        for row, (data, size) in enumerate(zip(text.bytes, text.length, strict=True)):
            said = data[:size].tobytes().decode(errors="replace")
            found.append((len(host.user(host.chat.first_piece, said)), part, row))
    tokens, part, row = max(found, key=lambda one: one[0])
    return tokens, part.row_name(row)
