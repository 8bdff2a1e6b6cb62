"""Small tokenizers of the three kinds, trained with the `tokenizers` library."""

import json
import random
import string
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from jaxrl.text.pretokens import PATTERNS

SPECIAL = {
    "gpt2": ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
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
