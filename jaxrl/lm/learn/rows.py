"""How many tokens what an environment says takes, where that is known before a run begins."""

from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxrl import config
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.options import PlayConfig
from jaxrl.text import Template
from jaxrl.text.chat import Piece

C = TypeVar("C", bound=PlayConfig)


SEAMS = 4  # tokens more that a text may take where its fields meet its words


def with_room(env: LanguageEnvironment, tokenizer: ChatTokenizer, cfg: C) -> C:
    """The options with room for what the environment says, in tokens rather than bytes.

    For the rows of a list, or for the widest of its templates; of any others as many as bytes.
    ValueError, with the row, where less was asked for and what is not read stops a run.
    """
    if env.num_rows:
        return with_rows(env, tokenizer, cfg)
    if tokenizer.tokenizer_json is None:  # a token is a byte
        return cfg
    try:
        host = HostChat(tokenizer)
    except ImportError:  # then as many as bytes
        return cfg
    of = type(env)
    room: dict[str, int] = {}
    if not cfg.prompt_tokens and of.prompt_bytes is LanguageEnvironment.prompt_bytes:
        room["prompt_tokens"] = widest(host, host.chat.first_piece, env.task, env.prompt_bytes)
    if not cfg.feedback_tokens and of.feedback_bytes is LanguageEnvironment.feedback_bytes:
        options = [widest(host, host.chat.next_piece, x, env.feedback_bytes) for x in env.feedback]
        room["feedback_tokens"] = max(options)
    return config.with_values(cfg, **room)


def widest(host: HostChat, piece: Piece, said: Template | str, most_bytes: int) -> int:
    """Tokens that a text may take with what stands around it, whatever its fields hold.

    Its words and its widest fields as they are, and as many again as the fields have bytes: a
    field of other letters may have a token for each of them.
    """
    if isinstance(said, str):
        return min(len(host.user(piece, said)), most_bytes + piece.overhead)
    fields = said.fields or {}
    text = said.text.format(**fields)
    in_fields = said.size - len(said.text.format(**dict.fromkeys(fields, "")).encode())
    tokens = len(host.user(piece, text)) + in_fields + (SEAMS if fields else 0)
    return min(tokens, most_bytes + piece.overhead)


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
