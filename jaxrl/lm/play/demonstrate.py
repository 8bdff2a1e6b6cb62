"""Episodes written by a scripted player instead of a model, for supervised training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.language import LanguageEnvironment
from jaxrl.lm.play.episodes import Episodes, empty, metric_names
from jaxrl.lm.play.limits import Limits
from jaxrl.text import Text, Tokens

PlayerFunction = Callable[[Any, jax.Array], Text]  # (env state, key) -> response


def demonstrate(
    env: LanguageEnvironment,
    chat: Any,
    sizes: Limits,
    player: PlayerFunction,
    key: jax.Array,
    episode_index: jax.Array,
) -> Episodes:
    """Whole fresh episodes [N] played by `player`; each a function of (key, global index) alone.

    In the record of `jaxrl.lm.play.rounds`, but with log_prob 0: nothing was drawn from a model. A
    response that does not fit is `cut`: it lacks its end of turn, and is not to be imitated.
    """
    names = metric_names(env)

    def one(index):
        record = jax.tree.map(lambda x: x[0], empty(1, sizes.context, sizes.max_turns, names))
        return _episode(env, chat, sizes, player, jax.random.fold_in(key, index), record)

    return jax.vmap(one)(episode_index)


def _episode(
    env: LanguageEnvironment,
    chat: Any,
    sizes: Limits,
    player: PlayerFunction,
    key: jax.Array,
    record: Episodes,
) -> Episodes:
    reset_key, play_key = jax.random.split(key)
    state, ts = env.reset(reset_key)
    record = _append(record, chat.first(ts.obs, sizes.first), jnp.zeros((), jnp.int32), False, True)

    def turn(carry, t):
        state, ts, record = carry
        player_key, env_key = jax.random.split(jax.random.fold_in(play_key, t))
        text = player(state, player_key)
        live = ~ts.done
        response = chat.response(text, sizes.response)
        record = _append(record, response, t, True, live)
        stepped, after = env.step(state, text, env_key)
        record = record.replace(
            reward=record.reward.at[t].set(jnp.where(live, after.reward, 0.0)),
            played=record.played.at[t].set(live),
            cut=record.cut.at[t].set(live & response.cut),
        )
        obs = after.obs.replace(bytes=after.obs.bytes[: env.feedback_bytes])
        reads = ~after.done | (after.truncated & ~after.terminated & env.truncates)
        record = _append(record, chat.next(obs, sizes.following), t + 1, False, live & reads)
        state, ts = jax.tree.map(lambda a, b: jnp.where(live, a, b), (stepped, after), (state, ts))
        return (state, ts, record), None

    turns = jnp.arange(sizes.max_turns, dtype=jnp.int32)
    (_, ts, record), _ = jax.lax.scan(turn, (state, ts, record), turns)
    return record.replace(
        terminated=ts.terminated,
        truncated=ts.truncated & ~ts.terminated,
        metrics={name: ts.metrics[name].astype(x.dtype) for name, x in record.metrics.items()},
    )


def _append(
    record: Episodes, tokens: Tokens, turn: jax.Array, action: bool, where: Any
) -> Episodes:
    """One episode's record with more tokens at its end."""
    step = jnp.arange(tokens.ids.shape[0], dtype=jnp.int32)
    inside = (step < tokens.length) & where
    at = jnp.where(inside, record.length + step, record.token.shape[0])
    return record.replace(
        token=record.token.at[at].set(tokens.ids, mode="drop"),
        action=record.action.at[at].set(action, mode="drop"),
        turn=record.turn.at[at].set(turn, mode="drop"),
        length=record.length + jnp.where(where, tokens.length, 0),
        unread=record.unread | (tokens.cut & where & (not action)),
    )
