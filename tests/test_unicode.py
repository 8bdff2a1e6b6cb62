"""Text of any language inside jit, against the `tokenizers` library and Python's `unicodedata`."""

import json
import unicodedata
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real
import tokenizer_files
from test_bpe import batch, rows
from tokenizers import Regex, Tokenizer, normalizers

from jaxrl.lm import folders
from jaxrl.text import BpeTokenizer, literal, to_str
from jaxrl.text.characters import (
    LETTER,
    LOWER,
    MARK,
    NUMBER,
    UNKNOWN,
    UPPER,
    _classes,
    characters,
    is_nfc,
    strip,
)
from jaxrl.text.pairs import ROOM as ROOM_FOR_PAIRS
from jaxrl.text.pairs import Pairs, _row
from jaxrl.text.pretokens import PATTERNS
from jaxrl.text.trie import from_the_left
from jaxrl.train import chat_data

SIZE = 64
ROOM = 200  # for a line of languages.txt
KINDS = sorted(PATTERNS)


@cache
def both(path: Path) -> tuple[BpeTokenizer, Tokenizer]:
    theirs = Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    return BpeTokenizer.from_file(path), theirs


@cache
def encoder(path: Path, size: int):
    tokenizer = both(path)[0]
    return jax.jit(jax.vmap(lambda text: tokenizer.encode(text, size)))


def differences(path: Path, strings: list[str], size: int) -> tuple[list, np.ndarray]:
    """(texts that were read, but not as the library does; which were not read)."""
    tokens = encoder(path, size)(batch(strings, size))
    unread = np.asarray(tokens.cut)
    expected = both(path)[1].encode_batch(strings, add_special_tokens=False)
    zipped = zip(strings, rows(tokens), expected, unread, strict=True)
    return [(s, mine, e.ids) for s, mine, e, cut in zipped if not cut and mine != e.ids], unread


@pytest.mark.parametrize("kind", KINDS)
def test_random_text_of_all_languages_has_the_tokens_of_the_library(kind):
    strings = tokenizer_files.random_unicode(4000, SIZE, seed=3)
    different, unread = differences(tokenizer_files.of_languages(kind), strings, SIZE)
    assert not different, different[:3]
    normal = [unicodedata.is_normalized("NFC", string) for string in strings]
    assert unread.tolist() == [kind == "qwen2" and not x for x in normal]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_no_utf8_are_told(kind):
    strings = ["a\u00e9", "\u3042\U0001f600", "plain"]
    text = batch(strings, SIZE)
    encode = encoder(tokenizer_files.of_languages(kind), SIZE)
    assert not np.asarray(encode(text).cut).any()
    cut_short = text.replace(length=text.length - 1)
    assert np.asarray(encode(cut_short).cut).tolist() == [True, True, False]


def test_what_is_utf8_and_its_code_points_are_those_of_python():
    rng = np.random.default_rng(0)
    parts = [b"\xed\xa0\x80", b"\xc0\x80", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"\xff", b"\x80"]
    parts += [x.encode() for x in ("a", "\u00e9", "\u3042", "\U0001f600", "\u07ff", "\uffff")]
    raw = [b"".join(rng.choice(np.array(parts, object), rng.integers(1, 6))) for _ in range(500)]
    raw += [rng.bytes(4) for _ in range(500)]
    found = jax.jit(jax.vmap(characters))(
        batch(["x"] * len(raw), 24).replace(
            bytes=jnp.asarray(np.array([list(x.ljust(24, b"\0")) for x in raw], np.uint8)),
            length=jnp.asarray([len(x) for x in raw]),
        )
    )
    for i, data in enumerate(raw):
        try:
            points = [ord(char) for char in data.decode()]
        except UnicodeDecodeError:
            points = None
        assert bool(found.valid[i]) == (points is not None), data
        if points is not None:
            first = np.asarray(found.first[i])[: len(data)]
            assert np.asarray(found.point[i])[: len(data)][first].tolist() == points


@pytest.mark.parametrize(
    ("expression", "kinds"),
    [
        (r"\p{L}", (UPPER, LOWER, LETTER)),
        (r"[\p{Lu}\p{Lt}]", (UPPER,)),
        (r"\p{Ll}", (LOWER,)),
        (r"\p{M}", (MARK,)),
        (r"\p{N}", (NUMBER,)),
        (r"\s", (7, 8, 9)),
    ],
)
def test_classes_of_all_code_points_are_those_of_the_library(expression, kinds):
    table = _classes()
    of = table.value[table.page].reshape(-1)
    without = normalizers.Replace(Regex(expression), "")
    points = [x for x in range(0x110000) if not 0xD800 <= x < 0xE000]
    for at in range(0, len(points), 2**14):
        some = points[at : at + 2**14]
        kept = set(without.normalize_str("".join(map(chr, some))))
        known = [x for x in some if of[x] != UNKNOWN]
        assert [x for x in known if (chr(x) not in kept) != (of[x] in kinds)] == []


def test_the_white_space_that_is_stripped_is_that_of_python():
    base = [*map(chr, range(128)), *(chr(x) for x in range(128, 0x110000) if chr(x).isspace())]
    base += ["\u200b", "\u180e", "\ufeff", "\u00e9", "\u3042", "\U0001f600"]
    white = [x for x in base if x.isspace()]
    rng = np.random.default_rng(0)
    strings = [x for one in base for x in (one, f"{one}a", f"a{one}", f"{one}a{one}b{one}")]
    strings += ["".join(rng.choice([*white, "a"], rng.integers(0, 8))) for _ in range(500)]
    found = jax.device_get(jax.jit(jax.vmap(strip))(batch(strings, 24)))
    said = [x[:n].tobytes().decode() for x, n in zip(found.bytes, found.length, strict=True)]
    assert said == [string.strip() for string in strings]
    broken = strip(literal(b" \x85a\xa0 "))
    assert to_str(broken) == " \\x85a\\xa0 "


def test_text_in_the_form_nfc_is_told_from_text_that_is_not():
    base = ["a", "\u00e1", "\u0301", "\u0323", "\u0315", "\u1100", "\u1161", "\u11a8", "\uac00"]
    base += ["\u09c7", "\u09be", "\u09df", "\u0958", "\u212b", "\u00c5", "\u0338", "=", "\u0345"]
    rng = np.random.default_rng(0)
    strings = ["".join(rng.choice(base, rng.integers(0, 6))) for _ in range(3000)] + base
    mine = jax.jit(jax.vmap(lambda text: is_nfc(characters(text))))(batch(strings, 24))
    assert np.asarray(mine).tolist() == [unicodedata.is_normalized("NFC", s) for s in strings]
    assert 0.2 < np.mean(np.asarray(mine)) < 0.8


def test_the_library_leaves_alone_what_is_in_the_form_nfc():
    nfc = normalizers.NFC()
    known = [chr(x) for x in range(0x110000) if unicodedata.category(chr(x)) not in ("Cn", "Cs")]
    texts = [s for x in known for s in (x, f"a{x}", f"a\u0315{x}", f"{x}\u0301")]
    texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    assert nfc.normalize_str("\n".join(texts)) == "\n".join(texts)


def test_words_are_found_from_the_left_without_overlaps():
    rng = np.random.default_rng(0)
    length = jnp.asarray(rng.integers(0, 5, (200, 30)) * (rng.random((200, 30)) < 0.5))
    found = np.asarray(jax.jit(jax.vmap(from_the_left))(length.astype(jnp.int32)))
    for row, mine in zip(np.asarray(length), found, strict=True):
        at, expected = 0, np.zeros(30, bool)
        while at < 30:
            expected[at] = row[at] > 0
            at += max(row[at], 1)
        assert (mine == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_back_every_language(kind):
    path = tokenizer_files.of_languages(kind)
    tokenizer, lines = both(path)[0], tokenizer_files.LANGUAGES
    tokens = encoder(path, ROOM)(batch(lines, ROOM))
    back = jax.jit(jax.vmap(lambda t: tokenizer.decode(t, ROOM)))(tokens)
    said = [to_str(jax.tree.map(lambda x, i=i: x[i], back)) for i in range(len(lines))]
    assert said == [line.replace("\u2581", " ") for line in lines]


@pytest.fixture
def without_a_byte(tmp_path) -> Path:
    """A tokenizer that, like SmolLM2's, has no token for the byte 4, nor one with it."""
    file = json.loads(tokenizer_files.of_languages("smollm").read_text())
    del file["model"]["vocab"][chr(256 + 4)]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    return path


def test_a_byte_without_a_token_is_left_out_as_by_the_library_and_told(without_a_byte):
    strings = ["the guess", "th\x04e \x04guess\x04", "\x04"]
    tokens = encoder(without_a_byte, SIZE)(batch(strings, SIZE))
    ours, theirs = both(without_a_byte)
    assert rows(tokens) == [x.ids for x in theirs.encode_batch(strings)]
    assert np.asarray(tokens.cut).tolist() == [False, True, True]
    assert ours.unread(strings[1]) == "byte 4 has no token" and not ours.unread(strings[0])


def test_fixed_words_and_data_that_need_a_byte_without_a_token_are_refused_by_name(tmp_path):
    file = json.loads(tokenizer_files.file("qwen2").read_text())
    del file["model"]["vocab"][chr(256 + 4)]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(file))
    with pytest.raises(ValueError, match="cannot be read: byte 4 has no token"):
        folders.chat_tokenizer(path, "chatml", "Say \x04.")
    data = tmp_path / "chat.jsonl"
    said = [["user", "ok"], ["assistant", "\x04"]]
    turns = [{"role": role, "content": content} for role, content in said]
    data.write_text("\n" + json.dumps({"messages": turns}))
    with pytest.raises(ValueError, match=r"line 2: '\\x04' cannot be read: byte 4 has"):
        chat_data.read(data, folders.chat_tokenizer(path, "chatml"))


def test_a_tokenizer_without_classes_reads_characters_that_unicode_does_not_know():
    gemma, qwen = (both(tokenizer_files.of_languages(kind))[0] for kind in ("gemma", "qwen2"))
    assert qwen.unread("\u0378").startswith("Unicode ") and gemma.unread("\u0378") == ""


def test_a_text_that_is_not_in_the_form_nfc_is_named():
    tokenizer = both(tokenizer_files.of_languages("qwen2"))[0]
    assert "NFC" in tokenizer.unread("e\u0301") and not tokenizer.unread("\u00e9")


@pytest.mark.parametrize("count", [*range(12), 21, 1000, 20_000])
def test_pairs_are_found_in_their_table_and_others_are_not(count):
    """Also those that were made to want the same rows, and those of tables with few rows."""
    number = np.arange(2**18, dtype=np.int32)
    rows = int(ROOM_FOR_PAIRS * count + 16) | 1
    wanted = [_row(number * 0, number, rows, which) for which in (0, 1)]
    crowd = number[(wanted[0] < 40) & (wanted[1] < 40)][: count // 4]
    right = np.concatenate([crowd, np.setdiff1d(number, crowd)[: count - len(crowd)]])
    pair = np.stack([np.zeros_like(right), right], 1)
    left, value = Pairs.of(pair, pair + 7).find(jnp.asarray(number * 0), jnp.asarray(number))
    expected = np.where(np.isin(number, right), number + 7, -1)
    assert np.asarray(value).tolist() == expected.tolist()
    assert np.asarray(left).tolist() == np.where(expected < 0, -1, 7).tolist()


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "llama3_1", "gemma3"])
def test_real_tokenizers_read_all_languages_as_the_library_does(name):
    path = real.folder(name) / "tokenizer.json"
    lines = tokenizer_files.LANGUAGES
    different, unread = differences(path, lines, ROOM)
    assert not different, different[:3]
    normal = [unicodedata.is_normalized("NFC", line) for line in lines]
    assert unread.tolist() == [name == "qwen3" and not x for x in normal]
    strings = tokenizer_files.random_unicode(2000, ROOM, seed=5)
    different, unread = differences(path, strings, ROOM)
    assert not different, different[:3]
