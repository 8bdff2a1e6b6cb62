"""`train.tokenizer`: a tokenizer of what environments say, and the room that they need."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from jaxrl.lm.learn.lengths import Lengths
from jaxrl.text import BpeTokenizer
from train import tokenizer

GUESS, SUMS = "language/GuessTheNumber-easy", "reasoning/chain_sum"


def args(folder: Path, kind: Any) -> tokenizer.Args:
    return tokenizer.Args(folder, [GUESS], kind=kind, vocab_size=280, episodes=8)


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])  # qwen2 below
def test_the_agent_reads_what_it_writes_and_has_room_for_what_it_heard(tmp_path, kind):
    room = tokenizer.main(args(tmp_path, kind))[GUESS]
    path = tmp_path / "tokenizer.json"
    ours, theirs = BpeTokenizer.from_file(path), Tokenizer.from_file(str(path))
    assert ours.vocab_size == theirs.get_vocab_size() <= 280
    prompt = r"Guess 1-10, 4 turns: \boxed{N}"
    plain = len(theirs.encode(prompt, add_special_tokens=False).ids)
    assert plain < 0.7 * len(prompt)  # merges were learned
    assert plain < room.prompt <= plain + 4  # and what the form of conversation adds
    assert 1 <= room.feedback < room.prompt and 1 <= room.response < room.prompt


def test_the_same_command_writes_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "longest", lambda *_: Lengths(1, 1, 1))  # it takes long
    for name in ("one", "two"):
        tokenizer.main(args(tmp_path / name, "llama3"))
    one, two = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert one == two


def test_fields_of_the_environment_change_what_it_says(tmp_path):
    long = tokenizer.Args(tmp_path, [SUMS], ("terms=4", "digits=4"), kind="qwen2", episodes=8)
    room = tokenizer.main(long)[SUMS].prompt
    assert room >= 4 * 4 + 3 + 1  # each digit is a token; 2 terms of 2 digits would need 12 less


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 0}, r"episodes=0 must lie in \[1, 100000\]; try 512"),
        ({"vocab_size": 200}, r"vocab_size=200 must lie in \[259, 1048576\]; try 518"),
        ({"env": [GUESS, SUMS], "env_args": ("low=2",)}, "env_args=low=2 would belong to 2 env"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        tokenizer.Args(tmp_path / "new", **options)


def test_a_tokenizer_is_not_overwritten_and_needs_something_that_speaks(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="choose another folder"):
        tokenizer.Args(tmp_path)
    with pytest.raises(ValueError, match="env=CartPole-v1 is not spoken to"):
        tokenizer.main(tokenizer.Args(tmp_path / "new", ["CartPole-v1"]))
    assert not (tmp_path / "new").exists()
