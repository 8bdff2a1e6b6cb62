"""Settings of the test process: eight CPU devices, strict randomness, compiled programs kept."""

import os
import platform
from importlib.metadata import version

# Before jax is imported; subprocesses inherit both. Most of the suite's time is compilation, and
# without LLVM's optimisations a quarter of it goes away. Training programs set their own level:
# it is lowered here, and stays as it is in processes of their own.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
# XLA's older emitters, which jaxlib 0.10 still has, take two thirds of the time. Without fused
# multiply-adds their sums do not depend on how a loop was vectorised, as with the newer ones.
if version("jaxlib").startswith("0.10.") and platform.machine() == "x86_64":
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX"


import jax
import pytest

from jaxrl.program import ONE_CORE

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_debug_key_reuse", True)
ONE_CORE["xla_backend_optimization_level"] = 0


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs stay in pytest's cache: a second run of the suite compiles nothing."""
    if not hasattr(config, "cache"):  # -p no:cacheprovider
        return
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


LONG = (
    "test_campaign.py",
    "test_resume.py",
    "test_runs.py",
    "test_envs_contract.py",
    "test_envs_words.py",
    "test_exactness.py",
    "test_language_program.py",
    "test_train_tokenizer.py",
    "test_turn_ppo.py",
    "test_sweep.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, by file, so that all processes end together."""
    items.sort(key=lambda item: item.path.name not in LONG)
