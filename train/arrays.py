"""What the trainers of agents that see arrays share: the task, evaluation, given weights."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import memory, opponents, replay
from jaxrl.env import Environment
from jaxrl.evaluate import Evaluation, evaluate
from jaxrl.host.environment import HostEnvironment
from jaxrl.language import LanguageEnvironment
from jaxrl.policy import (
    Policy,
    check_saved,
    load_policies,
    load_policy,
    named_leaves,
    save_policy,
)
from jaxrl.program import Member, seed_keys
from jaxrl.spaces import is_image, is_space
from jaxrl.statistics import summarize_returns
from jaxrl.train import curriculum, during, edge, flags, options, physics, self_play, swept
from jaxrl.train.host import Actors, HostPlay, evaluate_on_host
from jaxrl.train.trainer import Outcome, Task


@dataclass(frozen=True)
class Options(physics.Physics, options.Options):
    """The flags of trainers whose agents see arrays."""

    curriculum: str = ""  # when all is drawn that randomise says: 0.5 of the training; METRIC:VALUE
    actors: Actors = field(default_factory=Actors)

    def __post_init__(self):
        super().__post_init__()
        self.check_physics()
        drawn = physics.parse(self.randomise)
        if self.curriculum:
            curriculum.parse(self.curriculum)
            if not drawn:
                raise ValueError(
                    f"randomise has nothing that curriculum={self.curriculum} could widen; try "
                    "--randomise gravity=uniform:8:12."
                )
            return
        fixed = {x.field for x in swept.parse(self.sweep) if x.part == "env"}
        for name in drawn.keys() & (fixed | physics.given(self).keys()):
            raise ValueError(
                f"randomise={name}: {name} is drawn, and given too; leave one out, or let a "
                "--curriculum begin there."
            )


def make_task(name: str, algorithm: ModuleType, args: Any) -> Task:
    """An algorithm on the environment that the options name; ValueError where they do not fit.

    The algorithm is a module with `wrap`, `make_policy`, `init`, `update`, `layout` and
    `trained_policy`; its Config is an `sgd.Sizes` or a `replay.Sizes`.
    """
    cfg, raw = args.algo, make_env(args)
    host = host_play(raw, args, algorithm)
    wrapped = algorithm.wrap(raw, cfg)
    fresh = partial(algorithm.init, cfg=cfg, env=wrapped)
    trained = partial(algorithm.trained_policy, cfg=cfg, env=raw)
    policy = jax.eval_shape(lambda key: trained(fresh(key)), jax.random.key(0))
    check_saved(policy)  # before hours of training
    if opponents.plays_itself(raw):
        opponents.check(args.env, policy, raw)

    def init(key, member, *, axis):
        env = algorithm.wrap(member.env, member.cfg)
        return algorithm.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, *, axis):
        env = algorithm.wrap(member.env, member.cfg)
        return algorithm.update(state, key, cfg=member.cfg, env=env, axis=axis)

    # On a CPU acting needs a core of its own, unless learning is the most of the work.
    alone = host is not None and jax.default_backend() == "cpu" and row_weight(raw) == 1
    parts = memory.of_replay if isinstance(cfg, replay.Sizes) else memory.of_rollouts
    given = load_policy(args.init_from) if "init_from" in args.files() else None
    task = Task(
        name=name,
        init=init,
        update=update,
        layout=algorithm.layout(),
        cfg=cfg,
        env=raw,
        num_iterations=cfg.num_iterations,
        steps_per_iteration=cfg.num_envs * cfg.num_steps,
        num_blocks=1 if alone else cfg.num_blocks,
        minibatch_rows=cfg.minibatch_rows * row_weight(raw),
        outcome=outcome(trained, raw, host),
        host=host,
        parts=parts(cfg, wrapped, fresh),
        start=None if given is None else starter(given, policy, trained, algorithm, args.init_from),
    )
    if opponents.plays_itself(raw):
        task = self_play.against_itself(task)
    if args.curriculum:
        seen = jax.eval_shape(wrapped.reset, jax.random.key(0))[1].metrics
        task = curriculum.widening(task, args.curriculum, set(seen))
    return evaluated(task, args) if args.eval_every else task


def evaluated(task: Task, args: Any) -> Task:
    """A task that evaluates its policy while it trains, too; ValueError where it cannot."""
    if task.host is not None:
        raise ValueError(
            f"eval_every={args.eval_every} evaluates inside the program, and env={args.env} is "
            "stepped by Python; leave it out."
        )
    if args.eval_every > task.num_iterations:
        raise ValueError(
            f"eval_every={args.eval_every} is more than the run's {task.num_iterations} "
            f"iterations; try {max(task.num_iterations // 10, 1)}."
        )
    return during.watched(task, args.eval_every, args.eval_episodes)


def row_weight(env: Environment) -> int:
    """As how many small rows one counts where devices are chosen: images are much work."""
    leaves = jax.tree.leaves(env.observation_space, is_leaf=is_space)
    return 1 + sum(int(np.prod(x.shape)) // 4096 for x in leaves if is_image(x))


def host_play(env: Environment, args: Any, algorithm: ModuleType | None = None) -> HostPlay | None:
    """What plays an environment that Python steps; None for one that is part of the program."""
    if not isinstance(env, HostEnvironment):
        return None
    return HostPlay(env, args.algo, args.actors, algorithm)


def make_env(args: Any) -> Environment:
    """The environment that the options name; ValueError for one that is spoken to."""
    env = physics.make(args, flags.parse_fields(args.env_args))
    if isinstance(env, LanguageEnvironment):
        raise ValueError(
            f"env={args.env} is a language environment; try train.grpo or train.turn_ppo."
        )
    return env


def outcome(trained: Any, env: Environment, host: HostPlay | None = None) -> Outcome:
    """Policies are saved, and play fresh episodes with sampled actions."""
    return Outcome(
        trained=trained,
        save=lambda folder, policies: save_policy(folder / "policy", policies),
        evaluate=evaluate_policies if host is None else partial(evaluate_on_host, host),
        parts=partial(memory.of_evaluation, env),
        how_to_play="play it: jaxrl.load_policy('{}')",
    )


def reload(folder: Path, args: Any) -> tuple[Policy, Outcome]:
    """The policies that a finished run kept, and what can be done with them.

    ValueError where they are not those of the environment that the options name.
    """
    policies, env = load_policies(folder), make_env(args)
    if not policies.plays(env):
        raise ValueError(
            f"{folder}/config.json has env={args.env} with the spaces {env.observation_space} and "
            f"{env.action_space}, but policy/policy.json {policies.spec.observation_space} and "
            f"{policies.action_space}; copy both again from one run."
        )
    return policies, outcome(lambda policies: policies, env, host_play(env, args))


def starter(
    given: Policy, wanted: Policy, trained: Any, algorithm: ModuleType, source: Path
) -> Any:
    """A function that gives a fresh state [K, ...] the weights and statistics of a policy.

    `wanted` are the shapes of the run's own; `trained` takes them from its state. Raises ValueError
    for a policy of other spaces or another network.
    """
    found, known = named_leaves(given), named_leaves(wanted)
    odd = sorted(found.keys() ^ known.keys())
    odd += [n for n in found.keys() & known.keys() if found[n].shape != known[n].shape]
    if odd:
        raise ValueError(
            f"init_from={source} does not fit this run: {odd[0]} differs; give it the same "
            "network, observations, actions and normalisation."
        )

    def start(state):
        def put(new, x):
            whole = np.broadcast_to(np.asarray(new), x.shape)
            return jax.make_array_from_callback(x.shape, x.sharding, lambda index: whole[index])

        policy = jax.tree.map(put, given, trained(state))
        return algorithm.with_policy(state, policy)

    return start


def evaluate_policies(policies: Policy, members: Member, episodes: int) -> dict[str, Any]:
    """Statistics of `episodes` fresh episodes for each policy [K, ...], actions sampled.

    What did not end in 100,000 steps counts with what it was paid so far, and is told of.
    """

    def play(policy: Policy, member: Member) -> Evaluation:
        key = seed_keys(member.seed)[2]
        return evaluate(policy.step, member.env, key, episodes, memory=policy.begin())

    played = jax.device_get(jax.jit(jax.vmap(play))(policies, jax.tree.map(jnp.asarray, members)))
    if opponents.plays_itself(members.env):
        edge.say(
            "note: in these episodes the others play at random: opponent=self is for training."
        )
    summary, cut = summarize_returns(played.episode_return, played.metrics), ~played.finished
    if cut.any():
        summary["unfinished"] = int(cut.sum())
        edge.say(
            f"note: {cut.sum()} of {cut.size} episodes did not end in 100,000 steps; their returns "
            "are those so far, the summary's `unfinished` counts them."
        )
    return summary
