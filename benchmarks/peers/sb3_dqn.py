"""Trains Stable-Baselines3's DQN with the options of a run of train.dqn; prints one JSON record.

The run's own summary.json has jaxrl's figures. SB3 has no double target, and none of the options
that are off by default.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.record import machine, peak_memory_mb, versions
from benchmarks.settings import EVAL_SEED, NUM_EVAL_EPISODES


def arguments(env_id: str, algo: dict, seed: int) -> dict:
    """SB3's names of the options; it counts in environment steps when the target network moves."""
    start, fall = algo["learning_rate"], algo["lr_schedule"] == "linear"
    steps_per_batch = algo["num_envs"] * algo["train_every"] / algo["gradient_steps"]
    same = ("buffer_size", "learning_starts", "batch_size", "gamma", "gradient_steps", "tau")
    return {name: algo[name] for name in same} | {
        "policy": "MlpPolicy",
        "env": make_vec_env(env_id, algo["num_envs"], seed=seed),
        "learning_rate": lambda remaining: start * remaining if fall else start,
        "train_freq": algo["train_every"],
        "n_steps": algo["n_step"],
        "target_update_interval": round(algo["target_every"] * steps_per_batch),
        "exploration_fraction": algo["exploration"],
        "exploration_initial_eps": algo["epsilon_start"],
        "exploration_final_eps": algo["epsilon_end"],
        "max_grad_norm": algo["max_grad_norm"],
        "policy_kwargs": {"net_arch": list(algo["hidden"])},
        "seed": seed,
        "device": "cpu",
    }


def main(make: Callable[[str, dict, int], Any]) -> None:
    """Train the model that `make(env_id, options, seed)` gives, evaluate it, report."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--run", type=Path, required=True, help="a run folder")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--steps", type=int, help="shorten the run, to check that it works")
    flags.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    config = json.loads((args.run / "config.json").read_text())["options"]
    env_id, algo, here = config["env"], config["algo"], machine("cpu")
    model = make(env_id, algo, args.seed)
    start = perf_counter()
    model.learn(args.steps or algo["total_steps"])
    run_s = perf_counter() - start
    env = make_vec_env(env_id, NUM_EVAL_EPISODES, seed=EVAL_SEED + args.seed)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=NUM_EVAL_EPISODES)
    record = {
        "program": "stable-baselines3",
        "env": env_id,
        "seed": args.seed,
        "env_steps": model.num_timesteps,
        "run_s": run_s,
        "steps_per_s": model.num_timesteps / run_s,
        "final_return": [mean],
        "peak_memory_mb": peak_memory_mb(),
        "versions": versions("stable-baselines3", "torch", "gymnasium", "numpy"),
        "machine": here | {"torch_threads": args.threads},
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(lambda *of_run: DQN(**arguments(*of_run)))
