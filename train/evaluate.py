"""Fresh episodes with what a run trained, or with any language model before it is trained.

`python -m train.evaluate --run DIR`, as at the run's end, in what its environment holds back; or
`python -m train.evaluate --model ./FOLDER --env reasoning/chain_sum --episodes 256 --show 3`.
Of language models it tells success, why the other episodes failed, and with `--samples k` pass@k
(arXiv:2107.03374, unbiased) and majority@k: whether the most frequent of a prompt's k answers, of
equally frequent ones the first seen, is right. With `--reward-model RUN` it tells best-of-n too:
what that of a prompt's samples is worth which the reward model likes best.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import memory
from jaxrl.config import check_fields, check_positive, check_range
from jaxrl.files import without_nan, write_text
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.learn.sizes import evaluation_parts
from jaxrl.lm.model.params import Params
from jaxrl.lm.play.episodes import metric_names
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.program import Member, members, seed_keys
from jaxrl.train import flags, fresh, language, physics, swept, table, transcripts
from jaxrl.train.judge import Judged
from jaxrl.train.paths import Folder, NewFile
from jaxrl.train.run_folder import read_config

SIZES = ("temperature", "response_tokens", "prompt_tokens", "feedback_tokens", "context")
OF_MODELS = ("env", *(field.name for field in fields(language.Spoken)))


@dataclass(frozen=True)
class Args(Judged, language.Spoken, physics.Physics):
    run: Folder | None = None  # folder of a finished run, with its own environment and options
    model: str = ""  # or a model: nano, tiny, small, base, ./FOLDER of transformers or of a run
    env: str = ""  # what the model plays; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE, over those of a run
    data: language.File | None = None  # rows of --env dataset
    episodes: int = 128  # prompts, of each seed; 0: every row of --env dataset
    seed: int = 1_000_000  # of the episodes
    samples: int = 1  # episodes from each prompt
    greedy: bool = False  # always the likeliest token
    temperature: float | None = None  # of the sampled ones; by default 1, or as the run was trained
    response_tokens: int = 0  # a response's length limit; 0: what fits, or as the run was trained
    prompt_tokens: int = 0  # the longest first observation; 0: the same
    feedback_tokens: int = 0  # the longest later one; 0: the same
    context: int = 0  # tokens of a conversation; 0: the same
    show: int = 0  # print so many episodes
    out: NewFile | None = None  # write all of them into this file, as JSON lines

    def __post_init__(self):
        check_fields(self)
        self.check_spoken()
        self.check_physics()
        check_range("episodes", self.episodes, 0, 2**31 - 1, 128)
        check_range("seed", self.seed, 0, 2**31 - 1, 1_000_000)
        check_range("samples", self.samples, 1, 2**20, 8)
        check_range("show", self.show, 0, 2**20, 3)
        check_positive("temperature", self.temperature, 1.0)
        if (self.run is None) == (not self.model):
            raise ValueError(
                f"run={self.run} and model={self.model or None}: one of them must be given; try "
                "--run runs/NAME."
            )
        if self.run is None:
            refuse(self, physics.OPTIONS, "is for agents that see arrays")
        own = given(self, OF_MODELS)
        if self.run is not None and own:
            name = own[0]
            raise ValueError(f"{name}={getattr(self, name)}: the run has its own; leave it out.")
        if self.run is None and not self.env:
            raise ValueError("env= must name what the model plays; try --env reasoning/chain_sum.")
        if self.greedy and (self.samples > 1 or self.temperature is not None):
            raise ValueError("greedy=True draws nothing; leave --samples and --temperature out.")

    @property
    def sizes(self) -> dict[str, Any]:
        """The options of playing that were given."""
        return {name: x for name in SIZES if (x := getattr(self, name))}


def given(args: Args, names: Iterable[str]) -> list[str]:
    """Those of these options that are not as by default."""
    by_default = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(Args)
    }
    return [name for name in names if getattr(args, name) != by_default[name]]


def refuse(args: Args, names: Iterable[str], why: str) -> None:
    """ValueError for the first of these options that was given."""
    for name in given(args, names):
        value = getattr(args, name)
        words = " ".join(value) if isinstance(value, tuple) else value
        raise ValueError(f"{name}={words} {why}; leave it out.")


@dataclass(frozen=True)
class Players:
    """Language models [K, ...] and where they play."""

    models: Any
    members: Member
    agent: Agent
    way: fresh.Way
    judge: Params | None = None  # a reward model


def of_run(args: Args, options: Any) -> Players:
    """A finished run's, in what its environment holds back."""
    assert args.run is not None
    options = replace(options, algo=replace(options.algo, **args.sizes))
    models, tokenizer, agent = language.reload_agent(args.run, options)
    _, judge = language.with_judge(args, tokenizer, agent)
    count = jax.tree.leaves(models)[0].shape[0]
    players = swept.members_of(options, options.algo, agent.env, "grpo")
    players = players.replace(seed=np.arange(args.seed, args.seed + count, dtype=np.uint32))
    way = fresh.Way(args.samples, args.greedy, held_out=True)
    return Players(models, players, agent, way, judge)


def of_model(args: Args) -> Players:
    """One model, with the weights of its folder or random ones."""
    if args.data is not None and not flags.reads_data(args.env):
        raise ValueError(f"data={args.data} is not read by env={args.env}; try --env dataset.")
    trainer = table.trainer("grpo")
    spoken = {f.name: getattr(args, f.name) for f in fields(language.Spoken)}
    options = trainer.options(env=args.env, env_args=args.env_args, **spoken)
    options = trainer.complete(replace(options, algo=replace(options.algo, **args.sizes)))
    tokenizer, agent, weights = language.make_agent(options, options.algo)
    _, judge = language.with_judge(args, tokenizer, agent)
    if weights is None:
        init_key = seed_keys(jnp.uint32(args.seed))[0]
        weights = jax.jit(agent.make_params, static_argnums=1)(init_key, False).policy
    models = jax.tree.map(lambda x: np.asarray(x)[None], weights)
    way = fresh.Way(args.samples, args.greedy)
    return Players(models, members([args.seed], options.algo, agent.env), agent, way, judge)


def play(args: Args, players: Players) -> dict[str, Any]:
    """The statistics of a language agent; ValueError where the environment cannot give them."""
    agent, way = players.agent, players.way
    env = agent.env.held_out if way.held_out else agent.env
    if way.samples > 1 and players.judge is None and "success" not in metric_names(env):
        raise ValueError(
            f"samples={way.samples} needs a metric `success`, which this environment lacks."
        )
    prompts = fresh.num_prompts(env, args.episodes)
    if not prompts:
        raise ValueError("episodes=0 takes every row, and this environment has none; try 128.")
    count = prompts * way.samples
    parts = evaluation_parts(agent, fresh.lanes(agent), count)
    seeds = len(players.members.seed)
    memory.check([replace(part, option="episodes") for part in parts], seeds, jax.devices()[:1])
    write = Transcriber(agent.chat.tokenizer, way.samples)
    lines: list[dict[str, Any]] = []

    def keep(shown: Any, first: int) -> None:
        lines.extend(write(shown, 0, 0, args.seed, first))

    way = replace(way, kept=count if args.out else args.show)
    found = fresh.play(
        players.models, players.members, args.episodes, agent, way, keep, players.judge
    )
    if args.out is not None:
        write_text(args.out, "".join(json.dumps(line) + "\n" for line in lines))
    for line in lines[: args.show]:
        print(transcripts.show(line) + "\n")
    return fresh.summary(found, way.samples, in_rows=env.num_rows > 0)


def main(args: Args) -> dict[str, Any]:
    """Prints and returns the statistics; ValueError for a folder that holds no finished run."""
    result = play(args, of_model(args)) if args.run is None else evaluate_run(args, args.run)
    print(json.dumps(without_nan(result), indent=2))
    return result


def evaluate_run(args: Args, folder: Path) -> dict[str, Any]:
    """Of a run of any trainer."""
    made_by = read_config(folder).get("trainer") or ""
    if made_by not in table.TRAINERS:
        known = ", ".join(table.TRAINERS)
        raise ValueError(f"{folder / 'config.json'}: trainer={made_by} is none of {known}.")
    trainer = table.trainer(made_by)
    options = flags.saved_options(trainer, folder)
    if isinstance(options, language.Options):
        if args.env_args:
            raise ValueError(f"env_args={args.env_args[0]}: the run has its own; leave it out.")
        refuse(args, physics.OPTIONS, "is for agents that see arrays")
        return play(args, of_run(args, options))
    of_speech = ("samples", "greedy", "show", "out", "reward_model", *SIZES)
    refuse(args, of_speech, "is for language agents")
    if not args.episodes:
        raise ValueError("episodes=0 must be at least 1; try 128.")
    options = physics.changed(options, args)
    trained, outcome = trainer.reload(folder, options)
    env = physics.make(options, flags.env_fields(options))
    count = jax.tree.leaves(trained)[0].shape[0]
    players = swept.members_of(options, options.algo, env, made_by)
    players = players.replace(seed=np.arange(args.seed, args.seed + count, dtype=np.uint32))
    parts = [replace(part, option="episodes") for part in outcome.parts(args.episodes)]
    memory.check(parts, count, jax.devices()[:1])
    return outcome.evaluate(trained, players, args.episodes)


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input.

    Sizes may be written as a trainer's are, and as what refuses them says: `--algo.context`.
    """
    words = [re.sub("^--algo[.]", "--", word) for word in flags.full_names(argv)]
    flags.run(Args, __doc__ or "", words, main)


if __name__ == "__main__":
    run(sys.argv[1:])
