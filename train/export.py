"""A run's model as a folder for `transformers`: `python -m train.export --run DIR --out FOLDER`."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import jax

from jaxrl.config import LARGEST, check_fields, check_range
from jaxrl.files import write_json, write_text
from jaxrl.lm import folders
from jaxrl.lm.model import lora, weights
from jaxrl.text import ByteTokenizer
from jaxrl.text.bpe_file import byte_characters
from jaxrl.text.chat_template import template_words
from jaxrl.text.formats import template_of
from jaxrl.train import flags, stop
from jaxrl.train.paths import Folder, NewFolder

OTHER_DAY = "2001-02-03"  # none of a run's
SYSTEM = " \tBe brief.\n "  # shows whether the white space around it goes


@dataclass(frozen=True)
class Args:
    run: Folder  # the run's folder
    out: NewFolder  # folder to write, made if needed
    seed_index: int = 0  # which of the run's seeds, from 0

    def __post_init__(self):
        check_fields(self)
        check_range("seed_index", self.seed_index, 0, LARGEST, 0)


def export(args: Args) -> None:
    """Writes config.json, safetensors and the tokenizer; ValueError for what cannot be.

    All is written beside the folder first: it is there as a whole, or not at all.
    """
    if not (args.run / "policy" / "model.json").is_file():
        raise ValueError(f"run={args.run} holds no language model; give a finished run's folder.")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ValueError(f"out={args.out} is not empty; choose another folder.")
    config, trained = folders.load_models(args.run)
    tokenizer = folders.load_chat_tokenizer(args.run / "policy")
    count = jax.tree.leaves(trained)[0].shape[0]
    if not 0 <= args.seed_index < count:
        raise ValueError(f"seed_index={args.seed_index} must lie in [0, {count - 1}]; try 0.")
    config, model = lora.merge(config, jax.tree.map(lambda x: x[args.seed_index], trained))
    config = replace(config, end_ids=config.end_ids or (tokenizer.chat.end_of_turn,))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(prefix=f".{args.out.name}-", dir=args.out.parent))
    try:
        with stop.partial(beside):
            weights.save(beside, config, model)
            save_tokenizer(beside, tokenizer)
            beside.chmod(0o755)  # mkdtemp's own is for its user alone
            beside.rename(args.out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def save_tokenizer(folder: Path, tokenizer: folders.ChatTokenizer) -> None:
    """tokenizer.json, and what `transformers` wants to know of it, the chat template among it."""
    file = tokenizer.tokenizer_json or json.dumps(byte_file(ByteTokenizer()), indent=2)
    write_text(folder / "tokenizer.json", file)
    words = tokenizer.chat.words
    names: dict[str, str] = {"eos_token": words.end, "pad_token": words.end}
    names |= tokenizer.template[1] if tokenizer.template is not None else {}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template(tokenizer)}
    write_json(folder / "tokenizer_config.json", about | names)


def template(tokenizer: folders.ChatTokenizer) -> str:
    """The model's own chat template where it still writes the words of the run, else one of them.

    It does not where the run had a system message, said how to think, or told the day.
    """
    words = tokenizer.chat.words
    if tokenizer.template is not None:
        own, names = tokenizer.template
        with suppress(ValueError):
            how = (OTHER_DAY, "", tokenizer.tools)
            if template_words(own, tokenizer.tokenizer, None, names, *how) == words:
                return own
    told = None
    with suppress(ValueError):  # some have no system messages
        told = tokenizer.words_with(SYSTEM)
    return template_of(words, told)


def byte_file(tokenizer: ByteTokenizer) -> dict[str, Any]:
    """The tokenizer.json of bytes: a byte-level BPE that never merges, token i the byte i."""
    special = [
        {
            "id": index,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name, index in tokenizer.special.items()
    ]
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    vocab = {character: byte for character, byte in byte_characters().items()}
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": whole | {"use_regex": True},
        "post_processor": None,
        "decoder": whole | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda pair: pair[1])),
            "merges": [],
        },
    }


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, export)


if __name__ == "__main__":
    run(sys.argv[1:])
