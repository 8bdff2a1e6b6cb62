"""Learn from pairs which response is better: `python -m train.reward_model --data FILE`.

Each line is {"prompt": ..., "chosen": ..., "rejected": ...}. Without a file the pairs are played in
`--env` by the model at the start, or as its warm start left it. The summary's return is the
accuracy on pairs that were not learned from.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import sgd
from jaxrl.algos import reward_model
from jaxrl.lm import folders, learn
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.play.episodes import Episodes
from jaxrl.policy import save_weights
from jaxrl.program import Member, over_members
from jaxrl.statistics import summarize_returns
from jaxrl.train import fresh, language, pair_data
from jaxrl.train.judge import HEAD, MEAN, STD
from jaxrl.train.paths import File
from jaxrl.train.trainer import Outcome, Task, Trainer

PRESETS = {"default": reward_model.Config()}


@dataclass(frozen=True)
class Args(language.Options):
    data: File | None = None  # rows of --env dataset; or JSONL of pairs to learn from
    eval_episodes: int = 1024  # responses of fresh pairs, two of each; of a file its last tenth
    algo: reward_model.Config = field(default_factory=reward_model.Config)


def setup(args: Args) -> Task:
    """The task of a reward model; ValueError where the options do not fit."""
    kept: list[Episodes] = []

    def read(path: Path, tokenizer: folders.ChatTokenizer) -> Episodes:
        """All but the last tenth of the pairs, which are kept apart."""
        pairs = pair_data.read(path, tokenizer)
        count = len(pairs.length) // 2
        if count < 2:
            raise ValueError(f"data={path} holds one pair; two are needed, to keep one apart.")
        learned = 2 * (count - max(count // 10, 1))
        kept.append(jax.tree.map(lambda x: x[learned:], pairs))
        return jax.tree.map(lambda x: x[:learned], pairs)

    def becomes(tokenizer: folders.ChatTokenizer, agent: Agent) -> Outcome:
        return replace(
            language.outcome(tokenizer, agent),
            trained=lambda state: (state.params, state.reference),
            save=partial(save, tokenizer, agent.model_config),
            evaluate=partial(evaluate, agent=agent, kept=kept[0] if kept else None),
            how_to_play="learn from it: python -m train.ppo --reward-model {}",
        )

    if args.eval_episodes % 2:
        raise ValueError(f"eval_episodes={args.eval_episodes} is odd, and pairs are played; try 2.")
    task = language.make_task("reward_model", reward_model, args, read, becomes)
    if task.host is not None:
        raise ValueError(f"env={args.env} meets Python, which judges no pairs; give --data.")
    return task


def save(
    tokenizer: folders.ChatTokenizer, model_config: ModelConfig, folder: Path, trained: Any
) -> None:
    """The trunk as a model, and the head beside it."""
    params, _ = trained
    folders.save_models(tokenizer, model_config, folder, params.policy)
    save_weights(folder / "policy" / HEAD, params.critic)


def evaluate(
    trained: Any, members: Member, episodes: int, *, agent: Agent, kept: Episodes | None
) -> dict:
    """Accuracy of each model [K, ...] on pairs that it has not seen, equal ones left out."""

    def one(trained: Any, member: Member) -> dict[str, jax.Array]:
        params, reference = trained
        record = kept
        if record is None:
            prompts = fresh.num_prompts(agent.env.held_out, episodes // 2)
            index = jnp.arange(prompts, dtype=jnp.int32)
            way = fresh.Way(samples=2, held_out=True)
            in_rows = agent.env.held_out.num_rows > 0
            how: Any = {"agent": agent, "way": way, "in_rows": in_rows}
            record = fresh.record_of(reference.policy, member, index, **how)
        cfg = member.cfg
        pairs, _ = learn.pairs_of(None, params, reference, record, cfg, None)
        size = gcd(len(record.length), cfg.micro_batch)
        reward = sgd.map_pieces(partial(reward_model.reward_of, cfg=cfg), params, pairs, size)
        sign = pairs.sign
        chosen, rejected = learn.in_order(reward, sign)
        known = {"told": sign[::2] != 0, "right": chosen > rejected, "reward": reward}
        return known | {"margin": chosen - rejected}

    found = jax.device_get(jax.jit(over_members(one, one_by_one=True))(trained, members))
    told, reward = found.pop("told"), found.pop("reward")
    scale = {MEAN: reward, STD: np.std(reward, 1, keepdims=True)}
    known = {
        name: np.where(told, x, np.mean(x, 1, where=told, keepdims=True))
        for name, x in found.items()
    }
    return summarize_returns(
        known.pop("right"), {"reward_margin": known["margin"], "told_pairs": told} | scale
    )


def reload(folder: Path, args: Any) -> tuple[Any, Outcome]:
    """ValueError: what a run kept is no policy."""
    raise ValueError(f"run={folder} is a reward model, which plays nothing; give a policy's run.")


TRAINER: Trainer = replace(
    language.declare("reward_model", reward_model, PRESETS, Args), setup=setup, reload=reload
)

if __name__ == "__main__":
    from jaxrl.train.command import run

    run("reward_model")
