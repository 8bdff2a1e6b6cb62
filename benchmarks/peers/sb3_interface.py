"""What the runners of Stable-Baselines3 and sbx share: PPO's arguments and the evaluation."""

import argparse
from dataclasses import replace
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.record import chosen
from benchmarks.settings import EVAL_SEED, NUM_EVAL_EPISODES, Setting


def peer_setting(args: argparse.Namespace) -> Setting:
    """The chosen setting at the length that a loop in Python can run."""
    setting = chosen(args)
    if setting.peer_steps is None:
        raise SystemExit(f"--setting {args.setting} has no peer_steps, so it is not run here.")
    return replace(setting, total_steps=args.steps or setting.peer_steps)


def ppo_arguments(setting: Setting, seed: int, activation: Any) -> dict[str, Any]:
    """PPO's arguments; make_vec_env gives a DummyVecEnv of monitored environments."""
    return {
        "policy": "MlpPolicy",
        "env": make_vec_env(setting.env_id, setting.num_envs, seed=seed),
        "learning_rate": lambda remaining: setting.lr * remaining,
        "n_steps": setting.num_steps,
        "batch_size": setting.num_envs * setting.num_steps // setting.num_minibatches,
        "n_epochs": setting.num_epochs,
        "gamma": setting.gamma,
        "gae_lambda": setting.gae_lambda,
        "clip_range": setting.clip_eps,
        "ent_coef": setting.ent_coef,
        "vf_coef": setting.vf_coef,
        "max_grad_norm": setting.max_grad_norm,
        "policy_kwargs": {
            "net_arch": {"pi": list(setting.hidden), "vf": list(setting.hidden)},
            "activation_fn": activation,
            "ortho_init": True,
            "optimizer_kwargs": {"eps": setting.adam_eps},
        },
        "seed": seed,
        "device": "cpu",
    }


def mean_return(model: BaseAlgorithm, setting: Setting, seed: int) -> float:
    """Mean return of fresh episodes, one per environment, actions sampled."""
    env = make_vec_env(setting.env_id, NUM_EVAL_EPISODES, seed=EVAL_SEED + seed)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=NUM_EVAL_EPISODES, deterministic=False)
    assert isinstance(mean, float)
    return mean
