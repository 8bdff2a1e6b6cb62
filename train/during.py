"""Evaluation during training: fresh episodes inside the program, and the best policy so far."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrl import memory, mesh
from jaxrl.evaluate import evaluate
from jaxrl.metrics import Metrics, Sums
from jaxrl.policy import save_policy
from jaxrl.program import Member, over_members, seed_keys
from jaxrl.train.trainer import Outcome, Task

BEST = "policy_best"  # the folder beside policy/


class Watched(flax.struct.PyTreeNode):
    """A learner's state, and what it was when it scored best."""

    learner: Any
    best: Any  # Policy
    best_return: jax.Array  # float32 []: the mean of its episodes
    best_iteration: jax.Array  # int32 []; 0: none was evaluated yet

    @property
    def iteration(self) -> jax.Array:
        return self.learner.iteration


def watched(task: Task, every: int, episodes: int) -> Task:
    """The task with an evaluation after every so many iterations, in the metric `eval_return`.

    It reads what is learned and changes nothing in it: a run with and one without learn the same.
    """
    outcome = task.outcome

    def init(key: jax.Array, member: Member, *, axis: Any) -> Watched:
        learner = task.init(key, member, axis=axis)
        none = jnp.float32(-jnp.inf), jnp.zeros((), jnp.int32)
        return Watched(learner, outcome.trained(learner), *none)

    def update(state: Watched, key: jax.Array, member: Member, *, axis: Any) -> tuple:
        learner, metrics = task.update(state.learner, key, member, axis=axis)
        return state.replace(learner=learner), metrics

    def layout(per_member: int) -> Watched:
        inner = task.layout(per_member) if callable(task.layout) else task.layout
        return Watched(inner, P(mesh.SEED), P(mesh.SEED), P(mesh.SEED))  # pyright: ignore

    def start(state: Watched) -> Watched:
        learner = state.learner if task.start is None else task.start(state.learner)
        return state.replace(learner=learner)

    look = partial(_look, every=every, episodes=episodes, trained=outcome.trained)
    parts = [*task.parts, *memory.of_evaluation(task.env, episodes)]
    return replace(
        task,
        init=init,
        update=update,
        layout=layout,
        start=start,
        look=look,
        parts=parts,
        outcome=_outcome(outcome),
    )


def _outcome(outcome: Outcome) -> Outcome:
    """The last policy as without, and the best one beside it: saved, and evaluated afresh."""

    def save(folder: Path, trained: Watched) -> None:
        outcome.save(folder, trained.learner)
        save_policy(folder / BEST, trained.best)

    def play(trained: Watched, members: Member, episodes: int) -> dict[str, Any]:
        best = outcome.evaluate(trained.best, members, episodes)
        at = {"iteration": np.asarray(trained.best_iteration).tolist()}
        return outcome.evaluate(trained.learner, members, episodes) | {"best": at | best}

    return replace(
        outcome,
        trained=lambda state: state.replace(learner=outcome.trained(state.learner)),
        save=save,
        evaluate=play,
    )


def _look(
    state: Watched,
    members: Member,
    *,
    axis: str | None,
    every: int,
    episodes: int,
    trained: Callable[[Any], Any],
) -> tuple[Watched, Metrics]:
    """Evaluate each of a device's members [K, ...] where it is time; all are equally far."""
    share = -(-episodes // mesh.axis_size(axis))
    first = mesh.global_index(share, axis)[0]

    def play(kept: tuple, policy: Any, member: Member) -> tuple[tuple, Sums]:
        key = jax.random.fold_in(jax.random.fold_in(seed_keys(member.seed)[2], 2), now)
        how: Any = {"memory": policy.begin(), "first": first}
        returns = evaluate(policy.step, member.env, key, share, **how).episode_return
        if axis is not None:  # in one order, whatever the devices
            returns = jax.lax.all_gather(returns, axis, tiled=True)
        score = returns[:episodes].mean()
        better = score > kept[1]
        kept = jax.tree.map(partial(jnp.where, better), (policy, score, now), kept)
        return kept, Sums(score, jnp.ones(()))

    def skip(kept: tuple, policy: Any, members: Member) -> tuple[tuple, Sums]:
        del policy
        return kept, Sums(*[jnp.zeros(members.seed.shape)] * 2)

    now = state.iteration[0]
    kept = state.best, state.best_return, state.best_iteration
    given = kept, trained(state.learner), members
    kept, seen = jax.lax.cond(now % every == 0, over_members(play), skip, *given)
    return Watched(state.learner, *kept), {"eval_return": seen}
