"""Code of a model, run where it can do no harm: a tool, and the judge of programming tasks.

Nothing in here imports jax, and nothing falls back to a weaker sandbox.
"""

from jaxrl.sandbox.outcome import Opaque, Outcome
from jaxrl.sandbox.tool import CodeTool

__all__ = ["CodeTool", "Opaque", "Outcome"]
