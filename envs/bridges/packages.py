"""Imports of the suites' packages, which are optional."""

import importlib
import warnings
from typing import Any


def package(suite: str, module: str) -> Any:
    """The module, without the warnings of what it imports; an ImportError says what to install."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError as error:
        text = f"{suite} is not installed: pip install 'jaxrl[{suite}]' ({error})."
        raise ImportError(text) from error
