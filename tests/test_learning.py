"""The promises in the headers of the trainers, held: `pytest -m slow -n 0 tests/test_learning.py`.

A price is what two cores took; they are given three times as long here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl.algos import reinforce as reinforce_algorithm
from train import grpo, loop, ppo, reinforce, sft
from train.trainer import Trainer

pytestmark = pytest.mark.slow

TOKENIZERS = Path(__file__).parents[1] / "benchmarks/results/learning/tokenizers"


def test_ppo_with_default_options_solves_cartpole_in_half_a_million_steps(tmp_path):
    args = ppo.Args(num_seeds=10, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_steps) == ("CartPole-v1", 500_000)
    summary = loop.train(args, ppo.setup(args))
    per_seed = np.asarray(summary["final_return"]["per_seed"])
    assert per_seed.shape == (10,)
    assert np.sum(per_seed >= 475) >= 9
    assert summary["final_return"]["iqm"] >= 490
    assert summary["run_s"] < 60


def learned(args: Any, trainer: Trainer, minutes: float) -> float:
    """The success of the trained agent, held to thrice the time that its header says."""
    summary = loop.train(args, trainer.setup(args))
    assert summary["run_s"] < 3 * 60 * minutes
    return summary["final_return"]["metrics"]["success"]["mean"]


def test_sft_teaches_guessing_by_25_600_games_of_an_expert(tmp_path):
    args = sft.Args(devices=2, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_episodes) == ("language/GuessTheNumber-easy", 25_600)
    assert learned(args, sft.TRAINER, minutes=1.5) >= 0.75


def test_reinforce_learns_guessing_from_random_play_and_100_000_games(tmp_path):
    algo = reinforce_algorithm.Config(sft_steps=250, overlong="penalise")
    args = reinforce.Args(devices=2, algo=algo, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_episodes) == ("language/GuessTheNumber-easy", 100_000)
    assert learned(args, reinforce.TRAINER, minutes=12) >= 0.8


def test_grpo_from_scratch_learns_sums_in_2_200_000_questions(tmp_path):
    args = grpo.Args(
        env="reasoning/chain_sum",
        env_args=("max_terms=2", "max_digits=2", "partial=0.5"),
        tokenizer=TOKENIZERS / "qwen2.json",
        algo=replace(grpo.PRESETS["from-scratch"], prompt_tokens=14, response_tokens=8),
        devices=2,
        run_dir=tmp_path / "run",
    )
    assert args.algo.total_episodes == 2_200_000
    assert learned(args, grpo.TRAINER, minutes=6) >= 0.95
