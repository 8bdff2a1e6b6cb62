"""Questions with answers from a JSONL file: one validating reader, and the split by a hash.

Each line is {"question": "...", "answer": "..."}; the answer may be a number. Other fields, as an
id or a source, are a reward function's. Or each is {"prompt": ...}, a text or a list of messages as
[{"role": "user", "content": "..."}], which a system message may precede, the same in every row:
then nothing is judged but by reward functions.
"""

import hashlib
import re
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl import files
from jaxrl.envs.dataset.gold import STRING, Gold, gold, stated

MOST_BYTES = 2**16  # of a question or an answer
CHANGES_MEANING = ("choices", "options", "messages", "image", "images", "tools", "context")


class Row(NamedTuple):
    """One question."""

    line: int  # of the file, from 1
    question: str
    solution: str  # as a model should say it: the row's own words, then #### and the answer
    gold: Gold
    held_out: bool  # of the test split
    system: str | None = None  # message before a prompt that no answer belongs to


def read(path: Path) -> list[Row]:
    """All rows of a file; ValueError with the line's number for the first that cannot be used.

    A row that stands there twice, word for word, counts once; a question with two answers is
    refused.
    """
    rows: dict[str, Row] = {}
    size = files.check_regular(path)
    if size >= 2**30:
        raise ValueError(f"{path} has {size} bytes; at most 1 GiB of questions can be held.")
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            with files.reading(path_line(path, number)):
                row = _row(number, line)
                name = row.question if row.system is None else line.decode()
                first = rows.setdefault(name, row)
                if first.gold != row.gold:
                    raise ValueError(f"the question of line {first.line} has another answer here.")
                if row.system != next(iter(rows.values())).system:
                    raise ValueError(
                        "its prompt has another system message than line "
                        f"{next(iter(rows.values())).line}, or it is a question among prompts; "
                        "write it into each user's text."
                    )
    if not rows:
        raise ValueError(f'{path} holds no rows; each line is {{"question": .., "answer": ..}}.')
    return list(rows.values())


def path_line(path: Path, number: int) -> Path:
    """For messages."""
    return Path(f"{path}, line {number}")


def _row(number: int, line: bytes) -> Row:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start} of the line).") from None
    entry = files.parse_json(text, "it")
    if not isinstance(entry, dict):
        raise ValueError('an object with "question" and "answer" is needed.')
    if "prompt" in entry and "question" not in entry:
        system, said = user_text(entry["prompt"])
        said = _text({"prompt": said}, "prompt")
        return Row(number, said, "", Gold(STRING, "-"), held_out(said), system)
    if meant := [name for name in CHANGES_MEANING if entry.get(name)]:
        raise ValueError(f'the row has "{meant[0]}", which is not read; write it into "question".')
    question, answer = _text(entry, "question"), _text(entry, "answer")
    right = gold(answer)
    return Row(number, question, _solution(answer), right, held_out(question))


def _text(entry: dict[str, Any], name: str) -> str:
    """A field as text without white space around it; of an answer a number too."""
    if name not in entry:
        raise ValueError(f'the row has no "{name}".')
    value = entry[name]
    if name == "answer" and isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{Decimal(repr(value)):f}"
    if not isinstance(value, str):
        raise ValueError(f'"{name}" is a {type(value).__name__}, not a text.')
    # In NFC, into which some tokenizers would bring it before they read it.
    value = unicodedata.normalize("NFC", value.replace("\r\n", "\n").strip())
    if not value or "\0" in value:
        raise ValueError(f'"{name}" {"holds the character NUL" if value else "is empty"}.')
    if len(value.encode()) > MOST_BYTES:
        raise ValueError(f'"{name}" has {len(value.encode())} bytes; at most {MOST_BYTES} fit.')
    return value


def _solution(answer: str) -> str:
    """The row's words without a calculator's marks, `<<48/2=24>>`, ending with the answer."""
    words = re.sub(r"<<[^<>\n]*>>", "", answer)
    said = stated(words)
    if "####" in words:
        return words
    return f"#### {said}" if said == words else f"{words}\n#### {said}"


def held_out(question: str) -> bool:
    """Whether a question is of the test split, a tenth: a function of its text alone."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") % 10 == 0


def user_text(prompt: Any) -> tuple[str, str]:
    """(system message, the user's text) of a prompt; ValueError for any other conversation."""
    if isinstance(prompt, str):
        return "", prompt
    known = isinstance(prompt, list) and all(
        isinstance(x, dict) and isinstance(x.get("content"), str) for x in prompt
    )
    roles = [x.get("role") for x in prompt] if known else []
    if roles == ["user"]:
        return "", prompt[0]["content"]
    if roles == ["system", "user"]:
        return prompt[0]["content"], prompt[1]["content"]
    raise ValueError(
        '"prompt" must be a text or [{"role": "user", "content": ..}], with a system message '
        "before it or none."
    )
