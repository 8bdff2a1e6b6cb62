"""Byte-level BPE inside jit against the `tokenizers` library, token by token."""

import json
import random
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_files
from tokenizers import Tokenizer

from jaxrl.text import BpeTokenizer, ByteTokenizer, Text, Tokens, literal, to_str
from jaxrl.text.characters import characters
from jaxrl.text.merges import Merges, merge_all
from jaxrl.text.patterns import boxed_integer
from jaxrl.text.pretokens import PATTERNS, starts
from jaxrl.text.tokens import Spelling, constant, join

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
    mine = jax.jit(jax.vmap(lambda text: starts(text, characters(text), PATTERNS[kind])))(
        batch(strings)
    )
    for string, row in zip(strings, np.asarray(mine), strict=True):
        assert np.flatnonzero(row).tolist() == [where[0] for _, where in split(string)], string


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_back_what_was_encoded(kind):
    strings = tokenizer_files.random_strings(200, SIZE, seed=8)
    tokenizer, tokens = ours(kind), encoder(kind)(batch(strings))
    back = jax.jit(jax.vmap(lambda t: tokenizer.decode(t, SIZE)))(tokens)
    assert [to_str(jax.tree.map(lambda x, i=i: x[i], back)) for i in range(200)] == strings


def test_special_tokens_decode_to_their_names_unknown_ids_to_one_and_every_byte_to_itself():
    tokenizer = ours("qwen2")
    end = tokenizer.special["<|im_end|>"]
    ids = jnp.array([end, *np.asarray(tokenizer.byte_token), 10**6, tokenizer.vocab_size, -1])
    text = tokenizer.decode(Tokens(ids, jnp.int32(len(ids) - 1), jnp.asarray(False)), 300)
    said = np.asarray(text.bytes)[: int(text.length)].tobytes()
    assert said == b"<|im_end|>" + bytes(range(256)) + b"<|unknown|>" * 2
    assert not text.cut
    holed = Spelling.of([b"a", b""]).decode(constant([0, 1, 0]), 20)  # an id that no token has
    assert to_str(holed) == "a<|unknown|>a"


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [(None, "special"), (None, "unknown"), ("qwen2", "special"), ("qwen2", "content")],
)
def test_a_token_that_is_no_plain_text_breaks_the_move_it_stands_in_and_is_seen(
    kind, hidden, tmp_path
):
    tokenizer = ByteTokenizer()
    if kind is not None:
        tokenizer = BpeTokenizer.from_file(tokenizer_files.with_added(kind, tmp_path, a=False))
    token = {
        "special": min(tokenizer.control, default=0),
        "unknown": 10**5,
        "content": tokenizer.special.get("<a>", 0),
    }[hidden]

    @partial(jax.jit, static_argnums=1)
    def say(extra, room):
        before, after = (tokenizer.encode(literal(x), len(x)) for x in ("\\box", "ed{5} ok"))
        text = tokenizer.decode(join([before, extra, after], 20), room)
        return text, boxed_integer(text).found

    none = Tokens(jnp.zeros(1, jnp.int32), jnp.int32(0), jnp.asarray(False))
    one = constant([token])
    for extra, whole in ((none, True), (one, False)):
        text, found = say(extra, 40)
        assert bool(found) == whole and (to_str(text) == "\\boxed{5} ok") == whole
    text, _ = say(one, 8)  # what a response has room for holds
    assert bool(text.cut) and int(text.length) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_that_are_not_special_are_one_token_wherever_they_stand(kind, tmp_path):
    """As the library has it: the longest from the left, and texts of their own between them."""
    names = {"think": False, "_think": False, "a": False, "aa": False, "s": True}
    path = tokenizer_files.with_added(kind, tmp_path, **names)
    changed = json.loads(path.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    for index, name in enumerate(
        ("  ", "ab", "aba", "abab"), changed["added_tokens"][-1]["id"] + 1
    ):
        changed["added_tokens"].append({"id": index, "content": name} | flags)
    path.write_text(json.dumps(changed))
    mine, oracle = BpeTokenizer.from_file(path), Tokenizer.from_file(str(path))
    oracle.encode_special_tokens = True
    rng = random.Random(3)
    pieces = [*mine.special, "<think", "a", "b", " ", "\n", "'s", "12", "!", "the", "  \n", "'ll"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 12)))[:SIZE] for _ in range(1500)]
    tokens = jax.jit(jax.vmap(lambda text: mine.encode(text, SIZE)))(batch(texts))
    assert rows(tokens) == [encoding.ids for encoding in oracle.encode_batch(texts)]
    found = {token for row in rows(tokens) for token in row}
    assert found.isdisjoint(mine.control) and found >= set(mine.special.values()) - mine.control
    back = jax.jit(jax.vmap(lambda t: mine.decode(t, SIZE)))(tokens)
    assert [to_str(jax.tree.map(lambda x, i=i: x[i], back)) for i in range(50)] == texts[:50]


def test_a_name_of_the_forms_is_control_whatever_the_file_says(tmp_path):
    changed = file("qwen2")
    for entry in changed["added_tokens"]:
        entry["special"] = False
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed))
    tokenizer = BpeTokenizer.from_file(path)
    ids = jax.jit(tokenizer.encode, static_argnums=1)(literal("a<|im_end|>b"), 12).ids
    assert tokenizer.control == {tokenizer.special[x] for x in ("<|im_start|>", "<|im_end|>")}
    assert tokenizer.control.isdisjoint(np.asarray(ids).tolist())


def test_what_does_not_fit_is_told():
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
    assert tokenizer.whole.size == 2
    texts = ["zqx", "zqx zqxq zqxqq", " zqx", "a zqxq", "zqx\nzqx", "zqxzqx", "1zqx1"]
    mine = rows(jax.jit(jax.vmap(lambda text: tokenizer.encode(text, 20)))(batch(texts, 20)))
    assert mine == [encoding.ids for encoding in oracle.encode_batch(texts)]


def random_merges(rng: random.Random, count: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Merges of three letters in an order that no training would give: parts may come later."""
    ids = {"a": 0, "b": 1, "c": 2}
    pairs: set[tuple[str, str]] = set()
    while len(pairs) < count:
        left, right = rng.choices(list(ids), k=2)
        if len(left + right) < 6:
            pairs.add((left, right))
            ids.setdefault(left + right, len(ids))
    order = sorted(pairs) if rng.random() < 0.5 else sorted(pairs, key=lambda p: len(p[0] + p[1]))
    if rng.random() < 0.7:
        rng.shuffle(order)
    return {(ids[x], ids[y]): (rank, ids[x + y]) for rank, (x, y) in enumerate(order)}


def test_rounds_of_merges_are_the_merges_one_by_one_whatever_their_order():
    """The one place where merges are made before their turn, and many at once."""
    rng, size, texts = random.Random(0), 24, 64
    apply = jax.jit(jax.vmap(lambda merges, *words: merges.apply(*words), (None, 0, 0, 0)))
    begins = np.zeros((texts, size), bool)
    begins[:, 0] = begins[:, 9] = True  # two words
    for _ in range(150):
        ranks = random_merges(rng, 12)
        letters = "".join(rng.choices("012", k=rng.randint(1, 3)))
        words = np.array([[int(rng.choice(letters)) for _ in range(size)] for _ in range(texts)])
        merges = Merges.of(ranks).replace(all_at_once=False)  # one program for all
        token, alive = map(np.asarray, apply(merges, words.astype(np.int32), begins | True, begins))
        for row, mine, stands in zip(words.tolist(), token, alive, strict=True):
            expected = merge_all(row[:9], ranks) + merge_all(row[9:], ranks)
            assert mine[stands].tolist() == expected, (ranks, row)


def _add(file: dict, name: str, **fields) -> None:
    entry = {"id": 10**4, "content": name, "special": False, "normalized": False}
    file["added_tokens"].append(entry | fields)


REFUSED = [
    (lambda f: f["model"].update(type="Unigram"), "model.type=Unigram is not BPE"),
    (
        lambda f: f["model"].update(byte_fallback=True),
        "model.byte_fallback and ignore_merges are not supported together",
    ),
    (
        lambda f: f["model"].update(byte_fallback=True, ignore_merges=False),
        "normalizer None is not supported with byte_fallback",
    ),
    (lambda f: f.update(normalizer={"type": "NFKC"}), "normalizer NFKC is not supported"),
    (lambda f: f["model"].update(dropout=0.1), "model.dropout=0.1 is not supported"),
    (lambda f: f["model"]["merges"].append(["zz", "qq"]), "needs token 'zz'"),
    (
        lambda f: f["model"]["vocab"].pop("!") and f["model"].update(unk_token="?"),
        "byte 33 has no token and model.unk_token='?'",
    ),
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
    (lambda f: f.update(model=[1]), "model=[1] must be an object"),
    (lambda f: f["model"].update(vocab=7), "model.vocab=7 must be an object"),
    (lambda f: f["model"]["vocab"].update(zq="1"), "gives 'zq' an id that is no integer"),
    (lambda f: f["model"]["vocab"].update(zq=10**12), "id 1000000000000 is none"),
    (lambda f: f["model"]["vocab"].update(zq=-1), "id -1 is none"),
    (lambda f: f["model"].update(merges=5), "model.merges=5 must be a list"),
    (lambda f: f["model"]["merges"].append(5), "no pair of tokens"),
    (lambda f: f.update(normalizer="NFC"), 'normalizer="NFC" must be an object'),
    (lambda f: f.update(pre_tokenizer={"type": "Sequence", "pretokenizers": []}), "unknown way"),
    (lambda f: f.update(added_tokens={}) or f.update(added_tokens=5), "added_tokens=5 must be"),
    (lambda f: f["added_tokens"].append(5), "must be an object"),
    (lambda f: f["added_tokens"].append({"id": 1}), "content=null must be a text"),
    (lambda f: _add(f, "<a>", lstrip=True), "added token '<a>' with ['lstrip'] is not supported"),
    (lambda f: _add(f, "x<|eot"), "added tokens 'x<|eot' and '<|eot_id|>' overlap"),
    (lambda f: _add(f, "<|pad|>", id=f["model"]["vocab"]["a"]), "has the id of another token"),
    (
        lambda f: (
            f["model"]["merges"].append(["<|eot_id|", ">"])
            or f["model"]["vocab"].update({"<|eot_id|": 10**4})
        ),
        "makes the special token '<|eot_id|>' of plain text",
    ),
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
