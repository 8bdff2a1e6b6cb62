"""Conversations from a JSONL file as token sequences, for supervised training.

Each line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", ...}, ...]}:
an optional system message, which replaces that of --system, then user and assistant in turn. What
they say is never a special token; added tokens that are not special, as `<think>`, are one token.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from jaxrl.files import parse_json, reason_of
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.play.episodes import Episodes, empty
from jaxrl.text.chat import short
from jaxrl.train import edge

T = TypeVar("T")
Message = tuple[str, str]  # role, content
Row = tuple[list[int], list[bool]]  # tokens, which of them the assistant wrote
# Of a row: what else stands there, as an id or a source, says nothing to the model.
CHANGES_MEANING = ("tools", "functions", "documents", "images", "chat_template_kwargs")
MOST_BYTES = 2**24  # of a line
MARK = b"\xef\xbb\xbf"  # of the order of bytes, with which some programs begin a file


def read(path: Path, tokenizer: ChatTokenizer) -> Episodes:
    """All conversations of a file, as long as the longest.

    ValueError with the line's number for the first that is broken; nothing is half-read.
    """
    host = HostChat(tokenizer)

    def one(line: str) -> tuple[Row, bool]:
        spoken = messages(line)
        return conversation(host, spoken), keeps_thoughts(host, spoken)

    found = read_lines(path, one)
    if kept := [number for number, (_, keeps) in found if keeps]:
        edge.say(f"data={path}, line {kept[0]}: {KEPT}")
    return record_of([row for _, (row, _) in found])


def read_lines(path: Path, one: Callable[[str], T]) -> list[tuple[int, T]]:
    """(number, what `one` makes of it) of each line of a file that is not empty.

    ValueError with the line's number for the first that is broken.
    """
    try:
        lines = path.read_bytes().removeprefix(MARK).split(b"\n")
    except OSError as error:
        raise ValueError(
            f"data={path} cannot be read: {reason_of(error)}; give a JSONL file."
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append((number, one(_text(line))))
            except ValueError as error:
                raise ValueError(f"data={path}, line {number}: {error}") from None
    if not found:
        raise ValueError(f"data={path} holds no conversations; each line is one JSON object.")
    return found


def _text(line: bytes) -> str:
    if len(line) > MOST_BYTES:
        raise ValueError(f"{len(line)} bytes are too many; at most {MOST_BYTES} may be in a line.")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start} of the line).") from None


def messages(line: str) -> list[Message]:
    """The messages of one line; ValueError that says what is wrong with it."""
    entry = parse_json(line, "it")
    found = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError('an object with a list "messages" is needed.')
    refuse_meaning(entry)
    parsed = [message_of(message, f"message {i}") for i, message in enumerate(found)]
    check_turns(parsed)
    if all(role != "assistant" for role, _ in parsed):
        raise ValueError("there is no assistant's message to learn from.")
    return parsed


def refuse_meaning(entry: dict[str, Any]) -> None:
    """ValueError for a field that would change what a model reads."""
    meant = [field for field in CHANGES_MEANING if entry.get(field)]
    if meant:
        raise ValueError(f"the object has {meant[0]!r}, which no form here says; leave it out.")


def check_turns(parsed: list[Message]) -> None:
    """ValueError where user and assistant do not speak in turn, after a system message or none."""
    spoken = [role for role, _ in parsed[1 if parsed[0][0] == "system" else 0 :]]
    for i, role in enumerate(spoken):
        wanted = ("user", "assistant")[i % 2]
        if role != wanted:
            number = i + len(parsed) - len(spoken)
            raise ValueError(f"message {number} is {short(role)}, not {wanted!r}.")


def message_of(message: Any, name: str) -> Message:
    """Role and content of one of the messages; ValueError for anything else."""
    if not isinstance(message, dict):
        raise ValueError(f'{name} needs "role" and "content", a text; it is {short(message)}.')
    for field in ("role", "content"):
        value = message.get(field)
        if not isinstance(value, str):
            told = f"its {field} is {short(value)}" if field in message else f"it has no {field}"
            raise ValueError(f'{name} needs "role" and "content", a text; {told}.')
    unknown = [field for field in message if field not in ("role", "content")]
    if unknown:
        raise ValueError(
            f"{name} has the field {short(unknown[0])}; only role and content are read, leave it "
            "out."
        )
    return message["role"], message["content"]


def conversation(host: HostChat, spoken: list[Message]) -> Row:
    """(tokens, which of them the assistant wrote, its end of turn included)."""
    piece = host.chat.first_piece
    if spoken[0][0] == "system":
        piece, spoken = host.opening(spoken[0][1]), spoken[1:]
    tokens: list[int] = []
    action: list[bool] = []
    for role, content in spoken:
        if role == "assistant":
            new, piece = host.response(content), host.chat.next_piece
        else:
            new = host.user(piece, content)
        tokens += new
        action += [role == "assistant"] * len(new)
    return tokens, action


KEPT = (
    "the thoughts of earlier turns stay in what the model reads, as in play, though its chat "
    "template leaves them out"
)


def keeps_thoughts(host: HostChat, spoken: list[Message]) -> bool:
    """Whether an earlier turn has thoughts here, which the model's template would not write."""
    earlier = [content for role, content in spoken if role == "assistant"][:-1]
    words = host.chat.words
    return bool(earlier and words.begun) or (words.drops and "</think>" in "".join(earlier))


def record_of(rows: list[Row]) -> Episodes:
    """Conversations side by side, with room for the longest."""
    longest = max(len(tokens) for tokens, _ in rows)
    record = empty(len(rows), longest, 1, ())
    token, action = np.zeros((len(rows), longest), np.int32), np.zeros((len(rows), longest), bool)
    for row, (tokens, chosen) in enumerate(rows):
        token[row, : len(tokens)], action[row, : len(tokens)] = tokens, chosen
    length = np.array([len(tokens) for tokens, _ in rows], np.int32)
    return record.replace(
        token=jnp.asarray(token), action=jnp.asarray(action), length=jnp.asarray(length)
    )
