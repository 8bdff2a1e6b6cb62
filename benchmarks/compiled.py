"""Times a JAX program, its compilation apart from its run."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import jax


class Timed(NamedTuple):
    """What a program returned and what it took."""

    out: Any
    lower_s: float  # tracing and lowering, a part of compile_s
    compile_s: float
    run_s: float


def compile_and_run(program: Callable, *args: Any) -> Timed:
    """Compile the program ahead of time, never from a cache, then run it once to its end."""
    jax.config.update("jax_enable_compilation_cache", False)
    start = perf_counter()
    lowered = jax.jit(program).lower(*args)
    lower_s = perf_counter() - start
    compiled = lowered.compile()
    compile_s = perf_counter() - start
    start = perf_counter()
    out = jax.block_until_ready(compiled(*args))
    return Timed(out, lower_s, compile_s, perf_counter() - start)
