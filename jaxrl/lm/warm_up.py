"""Supervised steps on scripted play: a start that knows the form of an answer."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl import mesh, objectives
from jaxrl.env import per_env_keys
from jaxrl.lm.agent import Agent, SharedConfig, State, optimizer
from jaxrl.lm.demonstrate import demonstrate
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.learn import descend, gradient, predict
from jaxrl.lm.model import Transformer
from jaxrl.lm.shards import Layout

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
    episodes = scripted(key, cfg=cfg, agent=agent, axis=axis)
    layout = agent.layout(axis)
    imitation = partial(imitation_loss, cfg=cfg, on=cfg.sft_on)
    whole = layout.gather(state.model)
    grads, told = gradient(imitation, whole, episodes, cfg.micro_batch, layout.sum)
    norm = layout.norm(grads)
    model, opt_state = descend(
        optimizer(cfg), grads, norm, cfg.max_grad_norm, state.opt_state, state.model
    )
    told |= {"grad_norm": norm, "param_norm": layout.norm(model)}
    state = state.replace(model=model, opt_state=opt_state, iteration=state.iteration + 1)
    return state, episodes, told


def scripted(key: jax.Array, *, cfg: SharedConfig, agent: Agent, axis: str | None) -> Episodes:
    """This device's share of `sft_episodes` fresh scripted episodes, or of given examples.

    Examples are drawn with replacement, each by (key, global index).
    """
    count = cfg.sft_episodes // mesh.axis_size(axis)
    if agent.examples is not None:
        keys = per_env_keys(key, mesh.global_index(count, axis))
        total = agent.examples.length.shape[0]
        row = jax.vmap(lambda k: jax.random.randint(k, (), 0, total))(keys)
        return jax.tree.map(lambda x: x[row], agent.examples)
    player = agent.env.expert if cfg.sft_player == "expert" else agent.env.random_player
    return demonstrate(
        agent.env, agent.chat, agent.limits, player, key, mesh.global_index(count, axis)
    )


def scripted_minibatches(
    key: jax.Array, count: int, cfg: SharedConfig, agent: Agent, axis: str | None
) -> Episodes | None:
    """Fresh scripted episodes, leaves [count, n, ...]; None where `sft_coef` is 0."""
    if not cfg.sft_coef:
        return None
    episodes = scripted(key, cfg=cfg, agent=agent, axis=axis)
    return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), episodes)


def with_scripted(
    grads: Transformer,
    model: Transformer,
    episodes: Episodes | None,
    weight: jax.Array,
    cfg: SharedConfig,
    layout: Layout,
) -> Transformer:
    """The gradient at a whole model, with that of imitating scripted episodes if there are any.

    Random but valid play keeps every move possible: a policy that has become sure of a poor
    strategy still meets better ones. With sft_on="all" the model goes on to predict what the game
    answers, for which it must know what the answers so far leave open.
    """
    if episodes is None:
        return grads
    imitation = partial(imitation_loss, cfg=cfg, on=cfg.sft_on)
    extra, _ = gradient(imitation, model, episodes, cfg.micro_batch, layout.sum)
    return jax.tree.map(lambda g, e: g + weight * e, grads, extra)


def imitation_loss(
    model: Transformer, episodes: Episodes, cfg: SharedConfig, on: str
) -> tuple[jax.Array, tuple[jax.Array, dict[str, objectives.Sums]]]:
    """Cross-entropy of the player's tokens, its sum, (their number, the metrics as sums).

    With on="all" of the environment's tokens too: how a game answers is learned with its form, but
    nothing of what to play. Random moves are noise that cannot be predicted; `sft_moves` below 1
    lets more of the gradient come from the answers.
    """
    log_prob, entropy = predict(model, episodes.token, episodes.length, 1.0, cfg.chunk, cfg.remat)
    mask = episodes.action[:, 1:]
    numerator, denominator = objectives.sft_loss(log_prob, mask)
    if on == "all":
        inside = jnp.arange(1, episodes.token.shape[1]) < episodes.length[:, None]
        answers, count = objectives.sft_loss(log_prob, inside & ~mask)
        numerator = cfg.sft_moves * numerator + answers
        denominator = cfg.sft_moves * denominator + count
        mask = inside
    told = {
        "loss": (numerator, denominator),
        "entropy": objectives.token_mean(entropy, mask),
    }
    return numerator, (denominator, told)
