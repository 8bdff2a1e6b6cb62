"""Real models and tokenizers, which are fetched and never committed."""

import os
from pathlib import Path

import pytest


def folder(name: str) -> Path:
    """That of one of them; the test is skipped where it has not been fetched."""
    root = os.environ.get("JAXRL_REAL")
    path = Path(root or "") / name
    if root is None or not path.is_dir():
        pytest.skip(
            f"{name}: python benchmarks/real_models.py --out real, then JAXRL_REAL=real pytest"
        )
    return path
