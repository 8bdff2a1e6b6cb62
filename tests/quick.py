"""`jit` for programs that a test runs a few times: not optimised, so compiled in half the time."""

from functools import partial

import jax

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
