"""Supervised steps on scripted play: a start that knows the form of an answer."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxrl import mesh, objectives
from jaxrl.lm.agent import Agent, SharedConfig, State, optimizer
from jaxrl.lm.demonstrate import demonstrate
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.learn import descend, gradient, predict
from jaxrl.lm.model import Transformer

Improve = Callable[[State, jax.Array], tuple[State, dict[str, jax.Array]]]


def after_warm_up(
    improve: Improve,
    state: State,
    key: jax.Array,
    *,
    cfg: SharedConfig,
    agent: Agent,
    axis: str | None,
) -> tuple[State, dict[str, jax.Array]]:
    """One iteration: of the warm start while it lasts, then of `improve`."""
    if not cfg.sft_steps:
        return improve(state, key)
    warming = partial(warm_up, cfg=cfg, agent=agent, axis=axis, like=improve)
    return jax.lax.cond(state.iteration < cfg.sft_steps, warming, improve, state, key)


def warm_up(
    state: State,
    key: jax.Array,
    *,
    cfg: SharedConfig,
    agent: Agent,
    axis: str | None,
    like: Improve,
) -> tuple[State, dict[str, jax.Array]]:
    """One supervised step on fresh scripted episodes.

    Its metrics are those of `like(state, key)`, another kind of iteration of the same program, NaN
    where they have no meaning here.
    """
    _, shapes = jax.eval_shape(like, state, key)
    state, _, told = imitate(state, key, cfg=cfg, agent=agent, axis=axis)
    metrics = {name: jnp.full(x.shape, jnp.nan, x.dtype) for name, x in shapes.items()}
    metrics |= {name: told[name] for name in told if name in metrics}
    if state.reference is not None:
        state = state.replace(reference=state.model)
    return state, metrics | {"episodes": jnp.zeros(())}


def imitate(
    state: State, key: jax.Array, *, cfg: SharedConfig, agent: Agent, axis: str | None
) -> tuple[State, Episodes, dict[str, jax.Array]]:
    """One optimizer step on `sft_episodes` fresh scripted episodes; also this device's episodes."""
    count = cfg.sft_episodes // mesh.axis_size(axis)
    player = agent.env.expert if cfg.sft_player == "expert" else agent.env.random_player
    episodes = demonstrate(
        agent.env, agent.chat, agent.limits, player, key, mesh.global_index(count, axis)
    )
    imitation = partial(imitation_loss, chunk=cfg.chunk, on=cfg.sft_on)
    grads, told = gradient(imitation, state.model, episodes, cfg.micro_batch, axis)
    model, opt_state = descend(optimizer(cfg), grads, state.opt_state, state.model)
    told |= {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(model)}
    state = state.replace(model=model, opt_state=opt_state, iteration=state.iteration + 1)
    return state, episodes, told


def imitation_loss(
    model: Transformer, episodes: Episodes, chunk: int, on: str
) -> tuple[jax.Array, tuple[jax.Array, dict[str, objectives.Sums]]]:
    """Cross-entropy of the player's tokens, its sum, (their number, the metrics as sums).

    With on="all" of the environment's tokens too: how a game answers is learned with its form, but
    nothing of what to play.
    """
    log_prob, entropy = predict(model, episodes.token, episodes.length, 1.0, chunk)
    mask = episodes.action[:, 1:]
    if on == "all":
        mask = jnp.arange(1, episodes.token.shape[1]) < episodes.length[:, None]
    numerator, denominator = objectives.sft_loss(log_prob, mask)
    told = {
        "loss": (numerator, denominator),
        "entropy": objectives.token_mean(entropy, mask),
    }
    return numerator, (denominator, told)
