"""Times Stable-Baselines Jax's PPO (sbx-rl) on one setting and prints one JSON record."""

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

# This file's folder leads the path, and the file is called like the package it imports.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import flax.linen as nn
import jax
import torch
from sbx import PPO
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.peers.sb3_interface import mean_return, peer_setting, ppo_arguments
from benchmarks.record import emit, machine, parser, peak_memory_mb, versions

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu}


class Clock(BaseCallback):
    """Notes when each iteration begins, and when the last one ends."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def _on_rollout_start(self) -> None:
        self.times.append(perf_counter())

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.times.append(perf_counter())

    def split(self) -> tuple[float, float]:
        """Seconds compiling and seconds running.

        sbx compiles inside its first iteration: what that one took beyond the median of the
        others counts as compilation.
        """
        first, *rest = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        compile_s = first - median(rest)
        return compile_s, self.times[-1] - self.times[0] - compile_s


def main() -> None:
    """Train, evaluate, report."""
    args = parser(__doc__ or "").parse_args()
    torch.set_num_threads(1)  # torch only holds the rollout here
    jax.config.update("jax_enable_compilation_cache", False)
    setting = peer_setting(args)
    here = machine(jax.devices()[0].device_kind)
    model = PPO(**ppo_arguments(setting, args.seed, ACTIVATIONS[setting.activation]))
    clock = Clock()
    model.learn(setting.env_steps, callback=clock)
    compile_s, run_s = clock.split()
    emit(
        args,
        program="sbx",
        env_steps=model.num_timesteps,
        lower_s=None,
        compile_s=compile_s,
        run_s=run_s,
        peak_memory_mb=peak_memory_mb(),
        final_return=[mean_return(model, setting, args.seed)],
        versions=versions("sbx-rl", "stable-baselines3", "jax", "flax", "gymnasium", "numpy"),
        machine=here,
    )


if __name__ == "__main__":
    main()
