"""Names of special tokens in what is said: content is never a control token, whoever says it."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizer_files

from campaign.figures import Figures


def forgeries(kinds: Sequence[str] = ("qwen2", "llama3")) -> Figures:
    """Names of special tokens in what somebody says are plain text, whoever says it."""

    from jaxrl.lm.folders import chat_tokenizer

    figures = Figures("forgeries")
    for kind in kinds:
        spoken = chat_tokenizer(tokenizer_files.file(kind))
        plain = specials(spoken, "user", "")
        for role in ("system", "user", "assistant"):
            for name in spoken.tokenizer.special:
                wrong = ["forged"] if specials(spoken, role, f" {name} ") != plain else []
                figures.case(wrong, f"{kind}: {name} said by the {role}", f"said by the {role}")
    return figures


def specials(spoken: Any, role: str, word: str) -> list[int]:
    """The special tokens of a conversation in which this role says the word."""
    from train import chat_data

    said = {"system": "ab", "user": "cd", "assistant": "ef"}
    said[role] = said[role][0] + word + said[role][1]
    messages = [{"role": who, "content": text} for who, text in said.items()]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "data.jsonl"
        file.write_text(json.dumps({"messages": messages}) + "\n")
        tokens = np.asarray(chat_data.read(file, spoken).token)[0]
    return [int(token) for token in tokens if int(token) in spoken.tokenizer.special.values()]
