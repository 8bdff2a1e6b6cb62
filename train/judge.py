"""A reward model that a run of `train.reward_model` kept, as a judge of other agents' episodes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.files import read_json, reading
from jaxrl.lm import folders
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model import lora
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.params import Critic, Params, zero_critic
from jaxrl.policy import COPY, fill_leaves, read_weights
from jaxrl.train import flags, table
from jaxrl.train.paths import Folder
from jaxrl.train.run_folder import read_config

HEAD, SUMMARY = "head.npz", "summary.json"
MEAN, STD = "reward_mean", "reward_std"  # in its summary: of the responses that judged it


# Of an agent's options: what the run of a reward model says where they are left as by default.
OF_START = ("env", "env_args", "model", "init_from", "tokenizer", "chat", "system", "thinking")
OF_ALGO = ("temperature", "response_tokens", "prompt_tokens", "feedback_tokens", "context")
WARM_START = ("sft_steps", "sft_episodes", "sft_on", "sft_moves", "sft_player", "sft_learning_rate")


@dataclass(frozen=True)
class Judged:
    """Whose scores an agent learns from."""

    reward_model: Folder | None = None  # run of train.reward_model, whose scores count


def as_judged(args: Any) -> Any:
    """The options, those by default as the reward model's run had them.

    So the agent starts as the one that played the pairs, its warm start included.
    """
    if args.reward_model is None:
        return args
    check_made(args.reward_model)
    theirs = flags.saved_options(table.trainer("reward_model"), args.reward_model)
    names = (*OF_START, "data") if flags.reads_data(theirs.env) else OF_START
    algo = _filled(args.algo, theirs.algo, (*OF_ALGO, *WARM_START), type(args)().algo)
    return replace(_filled(args, theirs, names, type(args)()), algo=algo)


def _filled(given: Any, theirs: Any, names: Iterable[str], default: Any) -> Any:
    left = [name for name in names if getattr(given, name) == getattr(default, name)]
    return replace(given, **{name: getattr(theirs, name) for name in left})


def check_made(folder: Path) -> None:
    """ValueError for the folder of another trainer."""
    made_by = read_config(folder).get("trainer")
    if made_by != "reward_model":
        raise ValueError(
            f"reward_model={folder} was made by train.{made_by} and judges nothing; give the "
            "folder of a run of train.reward_model."
        )


def load(folder: Path, spoken: folders.ChatTokenizer, agent: Agent) -> tuple[ModelConfig, Params]:
    """The structure and the weights of a run's first seed; ValueError where they do not fit.

    The head is scaled: of the responses on which the run was evaluated, which the model at its
    start gave, the scores have mean 0 and standard deviation 1.
    """
    option = f"reward_model={folder}"
    check_made(folder)
    for name in (SUMMARY, f"policy/{HEAD}"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{option} has no {name}, so it is not finished; go on with python -m "
                f"train.reward_model --resume {folder}."
            )
    check_form(option, folders.load_chat_tokenizer(folder / "policy"), spoken)
    config, trunks = folders.load_models(folder)
    if config.context < agent.limits.context:
        raise ValueError(
            f"{option} was made for conversations of {config.context} tokens, and the agent's have "
            f"up to {agent.limits.context}; set --algo.context lower, or train one of such pairs."
        )
    count = jax.tree.leaves(trunks)[0].shape[0]
    path = folder / "policy" / HEAD
    with reading(path, COPY):
        one = zero_critic(config.width)
        like = jax.eval_shape(lambda: jax.tree.map(lambda x: jnp.stack([x] * count), one))
        heads = fill_leaves(like, read_weights(path), str(path))
    config, trunk = lora.merge(config, jax.tree.map(lambda x: x[0], trunks))
    mean, std = _scale(folder / SUMMARY)
    head = Critic(jnp.asarray(heads.weight[0] / std), jnp.asarray((heads.bias[0] - mean) / std))
    return config, jax.tree.map(np.asarray, Params(trunk, head))


def check_form(option: str, theirs: folders.ChatTokenizer, ours: folders.ChatTokenizer) -> None:
    """ValueError where a conversation of ours has other tokens there."""
    if theirs.tokenizer_json != ours.tokenizer_json:
        sizes = [x.tokenizer.vocab_size for x in (theirs, ours)]
        raise ValueError(
            f"{option} reads another tokenizer, of {sizes[0]} tokens, than the agent's of "
            f"{sizes[1]}; train it with the agent's --model or --init-from."
        )
    same = theirs.chat.words == ours.chat.words
    if ours.template is not None:  # which may tell the day
        same = theirs.template == ours.template
    if not same:
        raise ValueError(
            f"{option} reads conversations in another form than the agent's; give both the same "
            "--chat and --system."
        )


def _scale(path: Path) -> tuple[float, float]:
    """(mean, standard deviation) of the first seed's rewards."""
    summary = read_json(path)
    try:
        known = summary["final_return"]["metrics"]
        mean, std = (float(known[name]["per_seed"][0]) for name in (MEAN, STD))
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"{path} tells no {MEAN} and {STD}; train that run again.") from None
    if not std > 0:
        raise ValueError(
            f"{path}: {STD}={std}: this reward model tells no responses apart; train it longer."
        )
    return mean, std
