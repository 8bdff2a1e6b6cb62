"""Texts between Python and compiled programs."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl.text import Text


def encoded(texts: Sequence[str], capacity: int, most: int | None = None) -> Text:
    """Leaves [n, ...] on the host, in NFC.

    What does not fit is `cut`; but what has more than `most` bytes ends there in "...".
    """
    data = np.zeros((len(texts), capacity), np.uint8)
    length, cut = np.zeros(len(texts), np.int32), np.zeros(len(texts), bool)
    for i, text in enumerate(texts):
        raw = unicodedata.normalize("NFC", text).encode(errors="replace")
        if most is not None and len(raw) > most:
            raw = raw[: max(most - 3, 0)].decode(errors="ignore").encode() + b"..."[:most]
        cut[i] = len(raw) > capacity
        raw = raw[:capacity]
        data[i, : len(raw)] = np.frombuffer(raw, np.uint8)
        length[i] = len(raw)
    on_host: Any = (data, length, cut)
    return Text(*on_host)
