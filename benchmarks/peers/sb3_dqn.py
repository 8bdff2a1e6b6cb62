"""Times Stable-Baselines3's DQN with the options of a preset of train.dqn; prints one JSON record.

jaxrl's own: `python -m train.dqn --preset NAME`, whose summary has steps_per_s and the returns.
"""

import sys
from pathlib import Path
from time import perf_counter

import torch
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.record import machine, off_policy_parser, peak_memory_mb, versions, write
from benchmarks.settings import DQN_SETTINGS, EVAL_SEED, NUM_EVAL_EPISODES
