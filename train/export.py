"""A run's model as a folder for `transformers`: `python -m train.export --run DIR --out FOLDER`."""

import json
import shutil
import sys
from collections.abc import Sequence
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
from jaxrl.text.chat import matching
from jaxrl.text.formats import opening_of, template_of
from jaxrl.train import flags, stop
from jaxrl.train.paths import Folder, NewFolder


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
    form = matching(tokenizer.tokenizer, tokenizer.form)
    names: dict[str, str] = {"eos_token": form.end, "pad_token": form.end}
    if tokenizer.template is None:
        opening = tokenizer.opening or opening_of(form, None)
        template = template_of(form, "".join(opening))
    else:
        template, own = tokenizer.template
        names |= own
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template} | names
    write_json(folder / "tokenizer_config.json", about)


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
