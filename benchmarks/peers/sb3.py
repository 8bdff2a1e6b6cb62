"""Times Stable-Baselines3's PPO on one setting and prints one JSON record."""

import sys
from pathlib import Path
from time import perf_counter

import torch
from stable_baselines3 import PPO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.peers.sb3_interface import mean_return, peer_setting, ppo_arguments
from benchmarks.record import emit, machine, parser, peak_memory_mb, versions

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def main() -> None:
    """Train, evaluate, report."""
    flags = parser(__doc__ or "")
    flags.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    setting = peer_setting(args)
    here = machine("cpu") | {"torch_threads": args.threads}
    model = PPO(**ppo_arguments(setting, args.seed, ACTIVATIONS[setting.activation]))
    start = perf_counter()
    model.learn(setting.env_steps)
    run_s = perf_counter() - start
    emit(
        args,
        program="stable-baselines3",
        env_steps=model.num_timesteps,
        lower_s=None,
        compile_s=None,
        run_s=run_s,
        peak_memory_mb=peak_memory_mb(),
        final_return=[mean_return(model, setting, args.seed)],
        versions=versions("stable-baselines3", "torch", "gymnasium", "numpy"),
        machine=here,
    )


if __name__ == "__main__":
    main()
