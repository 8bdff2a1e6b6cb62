"""`train.tokenizer`: a tokenizer of what environments say, and the room that they need."""

import pytest
from tokenizers import Tokenizer

from jaxrl.text import BpeTokenizer
from train import tokenizer

GUESS, SUMS = "language/GuessTheNumber-easy", "reasoning/chain_sum"


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama3"])
def test_it_writes_the_same_file_again_and_the_agent_reads_it(tmp_path, kind):
    files = []
    for name in ("one", "two"):
        args = tokenizer.Args(tmp_path / name, [GUESS], kind=kind, vocab_size=280, episodes=8)
        room = tokenizer.main(args)[GUESS]
        files.append(tmp_path / name / "tokenizer.json")
    assert files[0].read_bytes() == files[1].read_bytes()
    ours, theirs = BpeTokenizer.from_file(files[0]), Tokenizer.from_file(str(files[0]))
    assert ours.vocab_size == theirs.get_vocab_size() <= 280
    prompt = r"Guess 1-10, 4 turns: \boxed{N}"
    plain = len(theirs.encode(prompt, add_special_tokens=False).ids)
    assert plain < 0.7 * len(prompt)  # merges were learned
    assert plain < room.prompt <= plain + 4  # and what the form of conversation adds
    assert 1 <= room.answer < room.prompt and 1 <= room.response < room.prompt


def test_fields_of_the_environment_change_what_it_says(tmp_path):
    sizes = []
    for name, fields in (("plain", ()), ("long", ("terms=4", "digits=4"))):
        args = tokenizer.Args(tmp_path / name, [SUMS], fields, kind="qwen2", episodes=8)
        sizes.append(tokenizer.main(args)[SUMS].prompt)
    assert sizes[1] >= sizes[0] + 10  # two more terms and signs, eight more digits


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"episodes": 0}, "episodes=0 must be at least 1; try 512"),
        ({"vocab_size": 200}, "vocab_size=200 is too small"),
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
