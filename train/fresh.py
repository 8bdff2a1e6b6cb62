"""Fresh episodes of language models, played in pieces that fit in memory, and what they come to."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import config, statistics
from jaxrl.language import ANSWER
from jaxrl.lm.host.player import EVALUATION, take_turns
from jaxrl.lm.host.speaker import Parts, Speaker, jitted
from jaxrl.lm.host.speaker import play as play_on_host
from jaxrl.lm.host.worlds import Place
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.learn.judge import scores
from jaxrl.lm.learn.report import kinds, last_cut, reasons
from jaxrl.lm.learn.sizes import cache
from jaxrl.lm.model.params import Params
from jaxrl.lm.play.episodes import Episodes
from jaxrl.program import Member, over_members, seed_keys

MOST_LANES = 256
SCORE = "score"  # by a reward model
CACHE_BYTES = 2**31  # of the keys and values of the prompts, and of the lanes, that are at hand

Outcomes = dict[str, np.ndarray]  # of each episode [K, N]; N = prompts times samples
Keep = Callable[[Episodes, int], None]  # episodes [K, n] of a piece, its first prompt's number


@dataclass(frozen=True)
class Way:
    """How they are played, beside what the members' own options say."""

    samples: int = 1  # of each prompt
    greedy: bool = False  # the likeliest token always
    held_out: bool = False  # in what the environment keeps apart for this
    kept: int = 0  # episodes of a piece that are handed over whole


def num_prompts(env: Any, wanted: int) -> int:
    """Different prompts: of rows not more than there are, and with 0 all."""
    return min(wanted or env.num_rows, env.num_rows or wanted)


def lanes(agent: Agent) -> int:
    """Episodes side by side; what is played does not depend on it."""
    one = cache(agent.model_config, 1, agent.limits.context)
    return max(1, min(MOST_LANES, CACHE_BYTES // one))


def play(
    models: Any,
    members: Member,
    wanted: int,
    agent: Agent,
    way: Way,
    keep: Keep | None = None,
    judge: Params | None = None,
) -> Outcomes:
    """What becomes of fresh episodes of each model [K, ...], sample by sample of each prompt.

    Prompt i is row i of an environment that has rows, and else a function of the seed and i. A
    reward model gives each a `score`.
    """
    env = agent.env.held_out if way.held_out else agent.env
    count = num_prompts(env, wanted)
    most = max(1, CACHE_BYTES // cache(agent.model_config, 1, agent.limits.first))
    size = -(-count // -(-count // most))
    how: Any = {"agent": agent, "way": way, "in_rows": env.num_rows > 0}
    piece = jax.jit(partial(_piece, **how)) if agent.host is None else _on_host(**how)
    models, judge = jax.device_put((models, judge))  # once, for all pieces
    found: list[Outcomes] = []
    for start in range(0, count, size):
        index = np.minimum(start + np.arange(size, dtype=np.int32), count - 1)
        outcomes, shown = jax.device_get(piece(models, judge, members, index))
        real = min(size, count - start) * way.samples
        found.append({name: x[:, :real] for name, x in outcomes.items()})
        if keep is not None:
            keep(jax.tree.map(lambda x: x[:, :real], shown), start)  # noqa: B023
    return {name: np.concatenate([part[name] for part in found], 1) for name in found[0]}


def _piece(
    models: Any,
    judge: Params | None,
    members: Member,
    index: jax.Array,
    *,
    agent: Agent,
    way: Way,
    in_rows: bool,
) -> tuple[dict[str, jax.Array], Episodes]:
    """(outcomes [K, N], the first episodes) from the prompts of these numbers [P]."""

    def one(model: Any, member: Member) -> tuple[dict[str, jax.Array], Episodes]:
        record = record_of(model, member, index, agent=agent, way=way, in_rows=in_rows)
        told = outcomes_of(record)
        if judge is not None:
            told[SCORE] = scores(judge, record, member.cfg, way.samples)
        return told, jax.tree.map(lambda x: x[: way.kept], record)

    return over_members(one, one_by_one=True)(models, members)


def record_of(
    model: Any, member: Member, index: jax.Array, *, agent: Agent, way: Way, in_rows: bool
) -> Episodes:
    """Fresh episodes of one model, from the prompts of these numbers [P]."""
    who, player = _player(member, agent, way)
    key = jax.random.wrap_key_data(who.key)
    return player.play(model, key, index, who.cfg, way.samples, in_rows=in_rows)[0]


def _player(member: Member, agent: Agent, way: Way) -> tuple[Speaker, Agent]:
    """How a member plays, without its policy; and where."""
    cfg: Any = config.with_values(member.cfg, num_lanes=lanes(agent))
    if way.greedy:
        cfg = config.with_values(cfg, temperature=None)
    env = member.env.held_out if way.held_out else member.env
    key = jax.random.key_data(seed_keys(member.seed)[2])
    return Speaker(None, key, cfg, env), replace(agent, env=env)


def _on_host(agent: Agent, way: Way, in_rows: bool) -> Callable:
    """The same of what the host plays and judges; nothing is written down of that."""
    host, parts = agent.host, None

    def piece(
        models: Any, judge: None, members: Member, index: np.ndarray
    ) -> tuple[Outcomes, Episodes]:
        del judge  # none of what Python plays
        nonlocal parts
        found = []
        for k in range(len(members.seed)):
            model, member = jax.tree.map(lambda x: x[k], (models, members))  # noqa: B023
            who, player = _player(member, agent, way)
            count = min(lanes(agent), len(index) * way.samples)
            parts = parts or jitted(Parts(player, way.samples, count, in_rows))
            place, out = Place(int(member.seed), EVALUATION, 0), {}
            who = who.replace(policy=model)
            take_turns([play_on_host(parts, host, who, index, way.samples, place, out)])
            found.append(host.paid(out["record"], out["reward"], out["masked"]))
        host.told = {name: total / n for name, (total, n) in host.ledger.take().items() if n}
        record = jax.tree.map(lambda *x: jnp.stack(x), *found)
        outcomes = jax.tree.map(lambda *x: jnp.stack(x), *map(outcomes_of, found))
        return outcomes, jax.tree.map(lambda x: x[:, : way.kept], record)

    return piece


def outcomes_of(record: Episodes) -> dict[str, jax.Array]:
    """What is worth knowing of each episode [N]; the environment's own metrics among it."""
    told = record.metrics | {
        "episode_return": record.episode_return,
        "turns": record.num_turns.astype(jnp.float32),
        "cut_responses": record.cut.sum(1, dtype=jnp.float32),
        "cut": last_cut(record),
        "tokens": record.action.sum(1, dtype=jnp.float32),
        "unread": record.unread,
    }
    return told if record.masked is None else told | {"masked": record.masked}


def summary(found: Outcomes, samples: int = 1, in_rows: bool = False) -> dict[str, Any]:
    """The statistics of `summarize_returns`, and what tells why episodes failed.

    `in_rows`: all members played the same prompts.
    """
    own = dict(found)
    returns, cut = own.pop("episode_return"), own.pop("cut")
    tokens, unread = own.pop("tokens"), own.pop("unread")
    masked = own.pop("masked", np.zeros(returns.shape, bool))
    if masked.any():  # the mean of a seed's others, so that it is that of those that are known
        known = np.mean(returns, 1, where=~masked, keepdims=True)
        returns = np.where(masked, known, returns)
    turns = found["turns"].sum()
    told = statistics.summarize_returns(returns, own) | {
        "response_tokens": float(tokens.sum() / turns),
        "cut_share": float(found["cut_responses"].sum() / turns),
    }
    if unread.any():
        told["unread_share"] = float(unread.mean())
    if masked.any():
        told["masked_episodes"] = int(masked.sum())
    if SCORE in found and samples > 1:
        told["best_of"] = best_of(found[SCORE], returns, samples)
    if "success" in found:
        told |= _success(found, cut, samples, in_rows)
    return told


def best_of(score: np.ndarray, returns: np.ndarray, samples: int) -> dict[str, dict[str, float]]:
    """k -> what comes of taking that of k samples which a reward model likes best.

    `kl` is log k - (k - 1) / k, what KL(best of k || policy) is at most (arXiv:2401.01879).
    """
    score, returns = (x.reshape(-1, samples) for x in (score, returns))
    return {
        str(k): {
            "kl": math.log(k) - (k - 1) / k,
            "score": statistics.best_of(score, score, k),
            "return": statistics.best_of(score, returns, k),
        }
        for k in statistics.powers(samples)
    }


def _success(found: Outcomes, cut: np.ndarray, samples: int, in_rows: bool) -> dict[str, Any]:
    """Success with its interval, why the others failed, and with several samples pass@k.

    The interval takes all episodes from a prompt for one trial, which is never too narrow.
    """
    right = found["success"] > 0
    share, prompts = float(right.mean()), right.shape[1] // samples
    prompts *= 1 if in_rows else right.shape[0]
    why = {name: int(x.sum()) for name, x in reasons(found, cut).items()}
    failed = sum(why.values())
    told: dict[str, Any] = {
        "success": {"mean": share, "ci95": statistics.wilson(share, prompts), "prompts": prompts},
        "failed": {name: count / failed for name, count in why.items() if count},
    }
    for kind, of in kinds(found).items():
        told["success"].setdefault("of", {})[kind] = float(right[of].mean()) if of.any() else None
    if samples > 1:
        groups = right.reshape(-1, samples)
        told["pass_at"] = {
            str(k): statistics.pass_at(groups, k) for k in statistics.powers(samples)
        }
        if ANSWER in found:
            answers = found[ANSWER].reshape(-1, samples)
            told["majority_at"] = {str(samples): statistics.majority(groups, answers)}
    return told


def evaluate_models(
    trained: Any, members: Member, episodes: int, *, agent: Agent, judge: Params | None = None
) -> dict:
    """Fresh episodes of each trained model [K, ...] at the temperature it was trained with.

    `members` have leaves [K]; of their options those of playing are read.
    """
    found = play(trained, members, episodes, agent, Way(held_out=True), judge=judge)
    told = summary(found, in_rows=agent.env.held_out.num_rows > 0)
    return told if agent.host is None else told | {"host": agent.host.told}
