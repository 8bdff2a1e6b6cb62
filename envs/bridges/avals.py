"""States of others' environments with the types that a scan's carry keeps."""

from typing import Any

import jax
import jax.numpy as jnp


def strong(tree: Any) -> Any:
    """Its leaves as arrays without a weak type."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), tree)


def like(new: Any, old: Any) -> Any:
    """The leaves of `new` in the dtypes of `old`."""
    return jax.tree.map(lambda x, before: jnp.asarray(x, before.dtype), new, old)
