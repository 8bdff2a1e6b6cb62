"""Code of a user's own that we call: what goes wrong in there is told in one line."""

import contextlib
import traceback
from collections.abc import Iterator


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Whatever a user's own code raises in here is a ValueError that says where; theirs pass."""
    try:
        yield
    except (ValueError, ImportError, SyntaxError, OSError):
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{what}: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})."
        ) from error
