"""Byte-level BPE inside jit against the `tokenizers` library, token by token."""

import json
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_files
from tokenizers import Tokenizer

from jaxrl.text import BpeTokenizer, Text, Tokens, literal, to_str
from jaxrl.text.pretokens import PATTERNS, starts

KINDS = ["gpt2", "qwen2", "llama3"]
SIZE = 48


@cache
def ours(kind: str) -> BpeTokenizer:
    return BpeTokenizer.from_file(tokenizer_files.file(kind))


@cache
def theirs(kind: str) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(tokenizer_files.file(kind)))
    tokenizer.encode_special_tokens = True
    return tokenizer


@cache
def encoder(kind: str):
    tokenizer = ours(kind)
    return jax.jit(jax.vmap(lambda text: tokenizer.encode(text, SIZE)))


def batch(strings: list[str], size: int = SIZE) -> Text:
    raw = [string.encode() for string in strings]
    data = np.array([list(string.ljust(size, b"\0")) for string in raw], np.uint8)
    length = np.array([len(string) for string in raw], np.int32)
    return Text(jnp.asarray(data), jnp.asarray(length), jnp.zeros(len(strings), bool))


def rows(tokens: Tokens) -> list[list[int]]:
    ids, length = np.asarray(tokens.ids), np.asarray(tokens.length)
    return [row[:n].tolist() for row, n in zip(ids, length, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_random_strings_have_the_tokens_of_the_library(kind):
    strings = tokenizer_files.random_strings(10_000, SIZE, seed=7)
    tokens = encoder(kind)(batch(strings))
    expected = [encoding.ids for encoding in theirs(kind).encode_batch(strings)]
    different = [
        (s, mine, want)
        for s, mine, want in zip(strings, rows(tokens), expected, strict=True)
        if mine != want
    ]
    assert not different, different[:3]
    assert not np.asarray(tokens.cut).any()
    assert max(map(len, expected)) > 30
    assert min(len(want) - len(s) for s, want in zip(strings, expected, strict=True)) < -20


@pytest.mark.parametrize("kind", KINDS)
def test_borders_are_those_of_the_regular_expression(kind):
    strings = ["don't!!\n\n x", "  a\t\n \n b", "12345 67\r\n\r\n", "(foo) 'LL'll", "\n's \t'd", ""]
    strings += ["x  \n", "!\n \ty", " \t9", "''s's'", "a'r'rea"]
    split = theirs(kind).pre_tokenizer.pre_tokenize_str
    mine = jax.jit(jax.vmap(lambda text: starts(text, PATTERNS[kind])))(batch(strings))
    for string, row in zip(strings, np.asarray(mine), strict=True):
        assert np.flatnonzero(row).tolist() == [where[0] for _, where in split(string)], string


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_back_what_was_encoded(kind):
    strings = tokenizer_files.random_strings(200, SIZE, seed=8)
    tokenizer, tokens = ours(kind), encoder(kind)(batch(strings))
    back = jax.jit(jax.vmap(lambda t: tokenizer.decode(t, SIZE)))(tokens)
    assert [to_str(jax.tree.map(lambda x, i=i: x[i], back)) for i in range(200)] == strings


def test_special_tokens_and_unknown_ids_decode_to_nothing_and_every_byte_to_itself():
    tokenizer = ours("qwen2")
    end = tokenizer.special["<|im_end|>"]
    ids = jnp.array([end, *np.asarray(tokenizer.byte_token), 10**6, end])
    text = tokenizer.decode(Tokens(ids, jnp.int32(len(ids)), jnp.asarray(False)), 300)
    assert int(text.length) == 256
    np.testing.assert_array_equal(text.bytes[:256], np.arange(256))
    assert not text.cut


def test_what_cannot_be_exact_or_does_not_fit_is_told():
    tokens = encoder("gpt2")(batch(["cafe", "caf\u00e9"]))
    assert np.asarray(tokens.cut).tolist() == [False, True]
    tokenizer = ours("gpt2")
    long = jax.jit(lambda text: tokenizer.encode(text, 3))(literal("QZXKJW"))
    assert bool(long.cut) and int(long.length) == 3


def test_the_name_of_a_special_token_in_a_text_is_plain_text():
    text = "a<|im_end|>b"
    mine = encoder("qwen2")(batch([text]))
    assert rows(mine)[0] == theirs("qwen2").encode(text).ids
    assert ours("qwen2").special["<|im_end|>"] not in np.asarray(mine.ids)


def file(kind: str = "llama3") -> dict:
    return json.loads(tokenizer_files.file(kind).read_text())


def test_a_pre_token_that_is_a_token_wins_over_the_merges(tmp_path):
    """Llama-3's `ignore_merges`, with a word that no merges lead to."""
    changed = file()
    vocab = changed["model"]["vocab"]
    vocab["zqx"] = len(vocab)
    vocab["\u0120zqxq"] = len(vocab)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed))
    tokenizer, oracle = BpeTokenizer.from_file(path), Tokenizer.from_file(str(path))
    assert tokenizer.whole_size.shape == (2,)
    texts = ["zqx", "zqx zqxq zqxqq", " zqx", "a zqxq", "zqx\nzqx", "zqxzqx", "1zqx1"]
    mine = rows(jax.jit(jax.vmap(lambda text: tokenizer.encode(text, 20)))(batch(texts, 20)))
    assert mine == [encoding.ids for encoding in oracle.encode_batch(texts)]


REFUSED = [
    (lambda f: f["model"].update(type="Unigram"), "model.type=Unigram is not BPE"),
    (lambda f: f["model"].update(byte_fallback=True), "it is not byte-level"),
    (lambda f: f["model"].update(dropout=0.1), "model.dropout=0.1 is not supported"),
    (lambda f: f["model"]["merges"].append(["zz", "qq"]), "needs token 'zz'"),
    (lambda f: f["model"]["vocab"].pop("!"), "byte 33 has no token"),
    (lambda f: f.update(normalizer={"type": "Lowercase"}), "normalizer Lowercase"),
    (lambda f: f.update(pre_tokenizer={"type": "Whitespace"}), "['Whitespace'] is not byte-level"),
    (
        lambda f: f["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+"),
        r"unknown expression '\\w+'",
    ),
    (
        lambda f: f["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
        "behavior 'Removed' is unknown",
    ),
    (lambda f: f.pop("model"), "has no 'model'"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_a_tokenizer_that_cannot_be_exact_is_refused_with_the_reason(change, words, tmp_path):
    changed = file()
    change(changed)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        BpeTokenizer.from_file(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        BpeTokenizer.from_file(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="no tokenizer that can be exact"):
        BpeTokenizer.from_file(tmp_path / "tokenizer.json")
