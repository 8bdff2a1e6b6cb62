"""Environments through Gymnasium's interfaces: what a step takes, and what others learn on them.

    python benchmarks/gymnasium_out.py speed --out FILE
    python benchmarks/gymnasium_out.py learn --out FILE     # needs stable-baselines3

`speed` times CartPole-v1, one and 1,024 at once, beside Gymnasium's own and its vector environment
in NumPy, and Pendulum-v1, of which Gymnasium has no such one. `learn` trains PPO of
Stable-Baselines3 on both for 50,000 steps.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import jaxrl.envs.gymnasium  # the ids  # noqa: F401
from benchmarks.record import machine, versions

IDS = ("jaxrl/CartPole-v1", "CartPole-v1")


def microseconds(step: Any, actions: np.ndarray) -> dict[str, float]:
    """Of a step: the 10th percentile, which others who compute disturb least, and the median."""
    times = []
    for i, action in enumerate(actions):
        start = time.perf_counter()
        step(action)
        if i >= len(actions) // 5:  # the first ones compile
            times.append(time.perf_counter() - start)
    low, middle = np.quantile(times, [0.1, 0.5]) * 1e6
    return {"us_p10": round(low, 1), "us_median": round(middle, 1)}


def speed() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found = []
    for id in IDS:
        env = gymnasium.make(id, disable_env_checker=True).unwrapped
        env.reset(seed=0)

        def step(action, env=env):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

        found.append({"env": id, "num_envs": 1} | microseconds(step, rng.integers(2, size=5000)))
    push = rng.integers(2, size=(1000, 1024))
    turn = rng.uniform(-2, 2, (300, 1024, 1)).astype(np.float32)
    for id, actions, options in (
        ("jaxrl/CartPole-v1", push, {"autoreset_mode": "SameStep"}),
        ("jaxrl/CartPole-v1", push, {"autoreset_mode": "NextStep"}),
        ("CartPole-v1", push, {"vectorization_mode": "vector_entry_point"}),
        ("jaxrl/Pendulum-v1", turn, {"autoreset_mode": "SameStep"}),
        ("Pendulum-v1", turn[:30], {"vectorization_mode": "sync"}),
    ):
        env = gymnasium.make_vec(id, 1024, **options)
        env.reset(seed=0)
        times = microseconds(env.step, actions)
        rates = {f"steps_per_s{k[2:]}": round(1024e6 / us) for k, us in times.items()}
        found.append({"env": id, "num_envs": 1024} | options | times | rates)
    return found


def learn(steps: int = 50_000) -> list[dict[str, Any]]:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    options = {"n_steps": 128, "batch_size": 256, "learning_rate": 1e-3}
    options |= {"gamma": 0.98, "gae_lambda": 0.8}
    found = []
    for id in IDS:
        for seed in (0, 1):
            env = make_vec_env(id, n_envs=8, seed=seed)
            model = PPO("MlpPolicy", env, seed=seed, device="cpu", **options)
            start = time.perf_counter()
            model.learn(steps)
            run_s = time.perf_counter() - start
            test = make_vec_env(id, n_envs=8, seed=1000 + seed)
            returns, _ = evaluate_policy(model, test, 40, return_episode_rewards=True)
            row = {"program": "stable-baselines3 PPO", "env": id, "seed": seed, "env_steps": steps}
            found.append(row | {"run_s": round(run_s, 1), "final_return": float(np.mean(returns))})
    return found


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("what", choices=("speed", "learn"))
    args.add_argument("--out", type=Path, required=True, help="a line is added for each figure")
    args = args.parse_args()
    used = ("jax", "gymnasium", "numpy")
    if args.what == "learn":
        used += ("stable-baselines3", "torch")
    about = {"versions": versions(*used), "machine": machine("cpu")}
    for row in speed() if args.what == "speed" else learn():
        line = json.dumps(row | about)
        print(line, flush=True)
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
