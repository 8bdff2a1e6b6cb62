"""Conversations from a JSONL file as token sequences, for supervised training.

Each line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}, ...]}:
an optional system message, which replaces that of --system, then user and assistant in turn.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.play.episodes import Episodes, empty
from jaxrl.text.chat import Piece, matching, split_special

Message = tuple[str, str]  # role, content


def read(path: Path, tokenizer: ChatTokenizer) -> Episodes:
    """All conversations of a file, as long as the longest.

    ValueError with the line's number for the first that is broken; nothing is half-read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ValueError(f"data={path} cannot be read: {error}; give a JSONL file.") from None
    encode = _Encoder(tokenizer)
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(encode.conversation(messages(line)))
            except ValueError as error:
                raise ValueError(f"data={path}, line {number}: {error}") from None
    if not rows:
        raise ValueError(f"data={path} holds no conversations; each line is one JSON object.")
    return _record(rows)


def messages(line: str) -> list[Message]:
    """The messages of one line; ValueError that says what is wrong with it."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error}).") from None
    found = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError('an object with a list "messages" is needed.')
    parsed: list[Message] = []
    for i, message in enumerate(found):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f'message {i} needs "role" and "content", a text.')
        parsed.append((message.get("role", ""), message["content"]))
    spoken = [role for role, _ in parsed[1 if parsed[0][0] == "system" else 0 :]]
    for i, role in enumerate(spoken):
        wanted = ("user", "assistant")[i % 2]
        if role != wanted:
            raise ValueError(
                f"message {i + len(parsed) - len(spoken)} is {role!r}, not {wanted!r}."
            )
    if len(spoken) < 2:
        raise ValueError("there is no assistant's message to learn from.")
    return parsed


class _Encoder:
    """Messages to tokens on the host, with the pieces that `Chat` has inside jit."""

    def __init__(self, tokenizer: ChatTokenizer):
        self.tokenizer, self.chat = tokenizer, tokenizer.chat
        self.library: Any = None
        if tokenizer.tokenizer_json is not None:
            try:
                from tokenizers import Tokenizer
            except ImportError:
                raise ImportError("JSONL data needs tokenizers: pip install 'jaxrl[hf]'") from None
            self.library = Tokenizer.from_str(tokenizer.tokenizer_json)
            self.library.encode_special_tokens = True

    def text(self, text: str) -> list[int]:
        """Tokens of plain text, of any language."""
        if self.library is None:
            return list(text.encode())
        return self.library.encode(text, add_special_tokens=False).ids

    def opened(self, system: str) -> Piece:
        """What stands around the first user's text after this system message."""
        words = (
            self.tokenizer.opening_with(system)
            + matching(self.chat.tokenizer, self.tokenizer.form).user
        )
        parts = split_special(self.chat.tokenizer, words)
        prefix = parts.pop() if isinstance(parts[-1], str) else ""
        before: list[int] = []
        for part in parts:
            before += [part] if isinstance(part, int) else self.text(part)
        return self.chat.first_piece.replace(before=tuple(before), prefix=prefix)

    def conversation(self, spoken: list[Message]) -> tuple[list[int], list[bool]]:
        """(tokens, which of them the assistant wrote, its end of turn included)."""
        first = self.chat.first_piece
        if spoken[0][0] == "system":
            first, spoken = self.opened(spoken[0][1]), spoken[1:]
        tokens: list[int] = []
        action: list[bool] = []
        for i, (role, content) in enumerate(spoken):
            if role == "assistant":
                new = [*self.text(content), self.chat.end_of_turn]
            else:
                piece = self.chat.next_piece if i else first
                content = content.strip() if self.chat.strips else content
                new = [
                    *piece.before,
                    *self.text(piece.prefix + content + piece.suffix),
                    *piece.after,
                ]
            tokens += new
            action += [role == "assistant"] * len(new)
        return tokens, action


def _record(rows: list[tuple[list[int], list[bool]]]) -> Episodes:
    longest = max(len(tokens) for tokens, _ in rows)
    record = empty(len(rows), longest, 1, ())
    token, action = np.zeros((len(rows), longest), np.int32), np.zeros((len(rows), longest), bool)
    for row, (tokens, chosen) in enumerate(rows):
        token[row, : len(tokens)], action[row, : len(tokens)] = tokens, chosen
    length = np.array([len(tokens) for tokens, _ in rows], np.int32)
    return record.replace(
        token=jnp.asarray(token), action=jnp.asarray(action), length=jnp.asarray(length)
    )


def widen(record: Episodes, context: int, num_turns: int) -> Episodes:
    """The same conversations with room for `context` tokens and `num_turns` turns."""
    room = empty(record.length.shape[0], context, num_turns, ())

    def grow(x: jax.Array, like: jax.Array) -> jax.Array:
        return jnp.pad(x, [(0, n - m) for m, n in zip(x.shape, like.shape, strict=True)])

    return jax.tree.map(grow, record, room)
