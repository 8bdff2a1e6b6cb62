"""Every trainer by name: what `python -m train` lists, and all that takes any of them."""

import importlib

from jaxrl.train.trainer import Trainer

TRAINERS = {
    "ppo": "PPO, discrete and continuous actions",
    "pqn": "PQN: Q-learning without replay and target network",
    "dqn": "DQN with a replay: double, dueling, n-step, prioritised",
    "sac": "SAC: a replay and an entropy that is kept, continuous or discrete actions",
    "td3": "TD3 and DDPG: a deterministic policy and a replay, continuous actions",
    "a2c": "A2C: one gradient step after every few steps",
    "trpo": "TRPO: natural gradient steps in a trust region",
    "grpo_arrays": "GRPO without a critic: branches from a cloned state compared",
    "grpo": "GRPO of a language agent: samples of one prompt compared",
    "reinforce": "REINFORCE of a language agent: turns compared over the batch",
    "turn_ppo": "PPO of a language agent, with a critic of turns",
    "token_ppo": "PPO of a language agent against a reward model, with a KL at each token",
    "dpo": "DPO and its kin of a language agent: which of two responses is better",
    "kto": "KTO of a language agent: responses that are good or bad",
    "reward_model": "a reward model of pairs: which of two responses is better",
    "sft": "a language agent imitates scripted play or a file of conversations",
}
TOOLS = {
    "rlhf": "SFT, reward model and PPO as one command, and whether the model is over-optimised",
    "sweep": "train many configurations and seeds as one program, and compare them",
    "envs": "list the environments (`python -m envs`)",
    "report": "one page that compares runs: curves, intervals, what differs",
    "evaluate": "fresh episodes with what a run trained, or with any language model",
    "chat": "talk to a model in the terminal, or play an environment with it",
    "watch": "a film of episodes, fresh ones or of training; a page of a language agent's",
    "play": "step an environment by hand in a page, or watch a policy do it",
    "transcripts": "read a language agent's episodes",
    "export": "a language agent's model as a folder for transformers",
    "tokenizer": "train a small tokenizer on what environments say",
    "aot": "compile any trainer for TPUs that are not there",
}

LOOK = ("report", "watch", "play", "evaluate", "chat", "transcripts", "envs")  # of these


def trainer(name: str) -> Trainer:
    """The trainer of this name; ValueError that lists them for another one."""
    if name not in TRAINERS:
        raise ValueError(f"trainer={name} is none; try one of {', '.join(TRAINERS)}.")
    return importlib.import_module(f"jaxrl.train.{name}").TRAINER
