"""Small tokenizers of all kinds, trained with the `tokenizers` library."""

import json
import random
import string
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unicodedata import category

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from jaxrl.text.pretokens import PATTERNS

SPECIAL = {
    "gpt2": ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
LANGUAGES = (Path(__file__).parent / "languages.txt").read_text("utf-8").split("\n")
KINDS = ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Po", "So", "Zs", "Cf")
WORDS = "the guess is too high low try again user's can't WE'LL number between tower move disk peg"


def sentences(count: int, rng: random.Random) -> list[str]:
    """Plain English of a kind, numbers, code and white space."""
    pieces = [
        *WORDS.split(),
        "123",
        "4567",
        "...",
        "!=",
        "\n\n",
        "    ",
        "\t",
        "A->B",
        "\\boxed{12}",
    ]
    return [" ".join(rng.choices(pieces, k=rng.randint(3, 12))) for _ in range(count)]


def train(kind: str, vocab_size: int = 400) -> Tokenizer:
    """A byte-level BPE tokenizer that splits as the kind does."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(PATTERNS[kind].regex), "isolated")
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(name, special=True) for name in SPECIAL[kind]],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(2000, random.Random(0)), trainer)
    return tokenizer


@cache
def file(kind: str) -> Path:
    """The path of a tokenizer.json of this kind."""
    path = Path(mkdtemp()) / "tokenizer.json"
    train(kind).save(str(path))
    return path


def with_added(kind: str, folder: Path, **special: bool) -> Path:
    """A tokenizer.json of this kind in `folder`, with more added tokens: whether each is special.

    Names are given without what stands around them: `think` is <think>, `_think` is </think>.
    """
    changed = json.loads(file(kind).read_text())
    vocab, added = changed["model"]["vocab"], changed["added_tokens"]
    for name, is_special in special.items():
        content = f"</{name[1:]}>" if name.startswith("_") else f"<{name}>"
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        index = max(*vocab.values(), *(entry["id"] for entry in added)) + 1
        added.append({"id": index, "content": content, "special": is_special} | flags)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(changed))
    return path


def split(kind: str) -> Any:
    """How the library splits texts."""
    if kind in ("gpt2", "smollm"):
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        return whole if kind == "gpt2" else pre_tokenizers.Sequence([digits, whole])
    if kind == "gemma":
        return pre_tokenizers.Split(" ", "merged_with_previous")
    parts = pre_tokenizers.Split(Regex(PATTERNS[kind].regex), "isolated")
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([parts, whole])


@cache
def of_languages(kind: str) -> Path:
    """A tokenizer.json that was trained on texts of many languages; Qwen's wants NFC."""
    gemma = kind == "gemma"
    tokenizer = Tokenizer(
        models.BPE(byte_fallback=gemma, fuse_unk=gemma, unk_token="<unk>" if gemma else None)
        if gemma
        else models.BPE(ignore_merges=kind == "llama3")
    )
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    if gemma:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = split(kind)
    hexes = [f"<0x{byte:02X}>" for byte in range(256)] if gemma else []
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=[] if gemma else sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<unk>", "<eos>", *hexes] if gemma else ["<|endoftext|>"],
        limit_alphabet=300 if gemma else 1000,
        show_progress=False,
    )
    tokenizer.train_from_iterator(LANGUAGES + sentences(300, random.Random(0)), trainer)
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = [e for e in file["added_tokens"] if e["content"] not in hexes]
    path = Path(mkdtemp()) / "tokenizer.json"
    path.write_text(json.dumps(file))
    return path


def random_unicode(count: int, size: int, seed: int) -> list[str]:
    """At most `size` bytes of many languages: pieces of sentences, and characters of all sorts."""
    rng = random.Random(seed)
    text = "\n".join(LANGUAGES)
    assigned = [chr(x) for x in range(0x110000) if category(chr(x)) not in ("Cn", "Cs")]
    by_class = {kind: [x for x in assigned if category(x) == kind] for kind in KINDS}
    short = ["a", "B", "\u3042", "\u0301", "1", "!", "'", "/", " ", "\n", "s", "\u01c5", "\u0663"]
    short += ["\u00a0", "\u017f", "ll", "'RE", "\u00c9", "\u00e9", "\t", "\r", "\u2581"]
    strings = []
    while len(strings) < count:
        way = rng.random()
        if way < 0.3:
            at = rng.randrange(len(text))
            string = text[at : at + rng.randint(1, size)]
        elif way < 0.8:
            string = "".join(rng.choices(short, k=rng.randint(0, 20)))
        else:
            kinds = rng.choices(KINDS, k=rng.randint(0, 16))
            string = "".join(rng.choice(by_class[kind]) for kind in kinds)
        strings.append(string.encode()[:size].decode(errors="ignore"))
    return strings


def random_strings(count: int, size: int, seed: int) -> list[str]:
    """ASCII of all sorts: mixed, runs of digits, of white space, of punctuation, contractions."""
    rng = random.Random(seed)
    everything = "".join(map(chr, range(128)))
    alphabets = [everything, string.printable, "ab 1\n", string.digits + " ", " \n\t\r\x0b\x0c"]
    alphabets += [string.punctuation + " \n", "'sStTrReEvVmMlLdD ", string.ascii_letters + "' "]
    alphabets += [" \nx!9'", "aeh tgius"]
    strings = []
    while len(strings) < count:
        if rng.random() < 0.1:
            strings.append(sentences(1, rng)[0][:size])
        else:
            alphabet = rng.choice(alphabets)
            strings.append("".join(rng.choices(alphabet, k=rng.randint(0, size))))
    return strings
