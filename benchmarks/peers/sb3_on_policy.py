"""Trains Stable-Baselines3's A2C or sb3-contrib's TRPO with the options of a run of ours.

The run's own summary.json has jaxrl's figures. Its mean over environments and steps is the peer's
batch: as many environments, steps, epochs and minibatches.
"""

import sys
from pathlib import Path

import torch
from sb3_contrib import TRPO
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.peers.sb3_dqn import main

ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "silu": torch.nn.SiLU}


def make(env_id: str, algo: dict, seed: int) -> A2C | TRPO:
    """The model of the options, by its own names of them."""
    if algo["normalize_obs"] or algo["normalize_reward"]:
        raise SystemExit("VecNormalize is not set up here: take a run without normalisation.")
    same = ("gamma", "gae_lambda", "learning_rate")
    named = {name: algo[name] for name in same} | {
        "policy": "MlpPolicy",
        "env": make_vec_env(env_id, algo["num_envs"], seed=seed),
        "n_steps": algo["num_steps"],
        "policy_kwargs": {
            "net_arch": {"pi": list(algo["hidden"]), "vf": list(algo["hidden"])},
            "activation_fn": ACTIVATIONS[algo["activation"]],
        },
        "seed": seed,
        "device": "cpu",
    }
    if "cg_steps" in algo:
        return TRPO(
            **named,
            batch_size=algo["num_envs"] * algo["num_steps"] // algo["num_minibatches"],
            n_critic_updates=algo["num_epochs"],
            target_kl=algo["target_kl"],
            cg_max_steps=algo["cg_steps"],
            cg_damping=algo["cg_damping"],
            line_search_max_iter=algo["line_search_steps"],
            line_search_shrinking_factor=algo["line_search_shrink"],
        )
    return A2C(
        **named,
        ent_coef=algo["entropy_coef"],
        vf_coef=algo["value_coef"] / 2,
        max_grad_norm=algo["max_grad_norm"],
        use_rms_prop=algo["optimizer"] == "rmsprop",
    )


if __name__ == "__main__":
    main(make)
