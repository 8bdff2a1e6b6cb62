"""Trains Stable-Baselines3's SAC, TD3 or DDPG with the options of a run of train.sac or train.td3.

The run's own summary.json has jaxrl's figures. SB3's kernels are PyTorch's and not orthogonal, and
its SAC plays uniform actions before learning_starts.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.peers.sb3_dqn import main

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU}


def make(env_id: str, algo: dict, seed: int) -> SAC | TD3 | DDPG:
    """SB3's model of the options, by its own names of them."""
    same = ("buffer_size", "learning_starts", "batch_size", "gamma", "tau", "learning_rate")
    named = {name: algo[name] for name in (*same, "gradient_steps")} | {
        "policy": "MlpPolicy",
        "env": make_vec_env(env_id, algo["num_envs"], seed=seed),
        "train_freq": algo["train_every"],
        "policy_kwargs": {
            "net_arch": list(algo["hidden"]),
            "activation_fn": ACTIVATIONS[algo["activation"]],
        },
        "seed": seed,
        "device": "cpu",
    }
    if "policy_delay" not in algo:
        goal = algo["target_entropy"]
        return SAC(**named, target_entropy="auto" if goal is None else goal)
    size, std = named["env"].action_space.shape, algo["exploration_noise"]
    named["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, std))
    if algo["num_critics"] == 1:
        return DDPG(**named)
    delay = {"policy_delay": algo["policy_delay"], "target_policy_noise": algo["target_noise"]}
    return TD3(**named, **delay, target_noise_clip=algo["noise_clip"])


if __name__ == "__main__":
    main(make)
