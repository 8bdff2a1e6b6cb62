"""How many tokens what an environment says takes, where that is known before a run begins."""

from collections.abc import Iterator
from typing import TypeVar

import jax
import numpy as np

from jaxrl import config
from jaxrl.host_world import HostWorld
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.options import PlayConfig
from jaxrl.text import Template, Text
from jaxrl.text.chat import Piece

C = TypeVar("C", bound=PlayConfig)

PIECE = 1024  # rows that are opened at once, each with room for the longest
SEAMS = 4  # tokens more that a text may take where its fields meet its words


def with_room(env: LanguageEnvironment, tokenizer: ChatTokenizer, cfg: C) -> C:
    """The options with room for what the environment says, in tokens rather than bytes.

    For the rows of a list, or for the widest of its templates; of any others as many as bytes.
    ValueError, with the row, where less was asked for and what is not read stops a run.
    """
    if isinstance(env, HostWorld) and env.world:  # which says more than the row
        return cfg
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
    if cfg.prompt_tokens and cfg.unread != "stop":
        return cfg
    tokens, name = longest_row(env, tokenizer)
    if not 0 < cfg.prompt_tokens < tokens:
        return config.with_values(cfg, prompt_tokens=tokens) if tokens else cfg
    raise ValueError(
        f"prompt_tokens={cfg.prompt_tokens} is too short for {name}: its prompt has {tokens} "
        f"tokens; try --algo.prompt-tokens {tokens}, or leave it out."
    )


def longest_row(env: LanguageEnvironment, tokenizer: ChatTokenizer) -> tuple[int, str]:
    """The most tokens of a first observation, and its row; (0, "") where there are no rows.

    Counted on the host, where thousands take a second or two. ValueError, with the row, for one
    that cannot be read.
    """
    if not env.num_rows:
        return 0, ""
    host, most, longest = HostChat(tokenizer), -1, (env, 0)
    for part in [env] if env.held_out is env else [env, env.held_out]:
        for row, said in enumerate(_told(part)):
            try:
                tokens = len(host.user(host.chat.first_piece, said))
            except ValueError as error:
                raise ValueError(f"{part.row_name(row)}: {error}") from None
            if tokens > most:
                most, longest = tokens, (part, row)
    return most, longest[0].row_name(longest[1])


def _told(env: LanguageEnvironment) -> Iterator[str]:
    """The first observation of each row, in order."""
    size = min(env.num_rows, PIECE)
    for start in range(0, env.num_rows, size):
        row = np.minimum(np.arange(start, start + size, dtype=np.int32), env.num_rows - 1)
        text = jax.device_get(_open(env, row))
        for data, length in zip(text.bytes, text.length[: env.num_rows - start], strict=False):
            yield data[:length].tobytes().decode(errors="replace")


@jax.jit
def _open(env: LanguageEnvironment, row: jax.Array) -> Text:
    """The first observations of these rows."""
    return jax.vmap(lambda row: env.reset_row(row, jax.random.key(0))[1].obs)(row)
