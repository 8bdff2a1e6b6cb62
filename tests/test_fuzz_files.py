"""Files that are empty, cut short, of other types or endless: named in one line by every reader."""

from pathlib import Path

import pytest
from test_fuzz import ENTRIES, folder, outcome

__all__ = ["folder"]  # a fixture

CONTENTS = {
    "empty": b"",
    "half": b'{"trainer": "ppo", "opt',
    "binary": b"\xff\xfe\x00\x01",
    "null": b"null",
    "list": b"[]",
    "number": b"1",
    "nan": b'{"options": NaN, "trainer": NaN}',
    "deep": b"[" * 100_000,
    "types": b'{"trainer": [], "options": null, "messages": 3, "model": 3, "added_tokens": 1}',
    "unknown": b'{"trainer": "nobody", "options": {"envy": 1}, "messages": [{}]}',
    "long": b'{"options": "' + b"x" * 100_000 + b'"}',
}
READ_BY = {
    "resume": ("ppo", "config.json", ("--resume", "RUN")),
    "evaluate": ("evaluate", "config.json", ("--run", "RUN")),
    "transcripts": ("transcripts", "transcripts.jsonl", ("--run", "RUN")),
    "data": ("sft", "data.jsonl", ("--data", "RUN/data.jsonl")),
    "tokenizer": ("sft", "tokenizer.json", ("--tokenizer", "RUN/tokenizer.json")),
    "model": ("sft", "config.json", ("--model", "./RUN")),
    "weights": ("export", "policy/model.json", ("--run", "RUN", "--out", "new")),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READ_BY)
def test_a_broken_file_is_named_in_a_line(folder, capfd, reader, content):
    entry, name, argv = READ_BY[reader]
    Path("RUN/policy").mkdir(parents=True)
    Path("RUN", name).write_bytes(CONTENTS[content])
    code, said = outcome(ENTRIES[entry], list(argv), capfd)
    assert code in (1, 2) and said.startswith("error: ") and said.count("\n") == 1, said
    assert "RUN" in said and len(said) < 2000, said
