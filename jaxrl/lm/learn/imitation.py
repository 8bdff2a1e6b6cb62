"""Supervised learning of scripted play: alone, as a warm start, and as a rehearsal later on."""

import jax
import jax.numpy as jnp

from jaxrl import mesh, objectives, sgd
from jaxrl.lm.learn.agent import Agent, State
from jaxrl.lm.learn.batch import drawn, predict, token_means, without_unread
from jaxrl.lm.learn.optimizer import descend
from jaxrl.lm.learn.options import AgentConfig
from jaxrl.lm.learn.report import unread_share
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.play.demonstrate import demonstrate
from jaxrl.lm.play.episodes import Episodes, widened
from jaxrl.metrics import Metrics, Sums


def imitate(
    state: State, key: jax.Array, *, cfg: AgentConfig, agent: Agent, axis: str | None
) -> tuple[State, Episodes, Metrics]:
    """One optimizer step on `sft_episodes` fresh scripted episodes; also this device's episodes.

    Examples are learned at their own length, and shown with room for an episode of play.
    """
    episodes = scripted(key, cfg=cfg, agent=agent, axis=axis)
    layout = agent.layout(cfg, axis)
    grads, metrics = imitation_gradient(layout.gather(state.params), episodes, cfg, layout)
    now = cfg.at_iteration(state.iteration)
    params, opt_state, step = descend(grads, state.params, state.opt_state, cfg=now, layout=layout)
    metrics |= step | {"unread_share": mesh.psum(unread_share(episodes), axis)}
    state = state.replace(params=params, opt_state=opt_state, iteration=state.iteration + 1)
    if agent.examples is not None:
        episodes = widened(episodes, agent.limits.context, agent.limits.max_turns)
    return state, episodes, metrics


def scripted(key: jax.Array, *, cfg: AgentConfig, agent: Agent, axis: str | None) -> Episodes:
    """This device's share of `sft_episodes` fresh scripted episodes, or of given examples.

    Examples are drawn with replacement, each by (key, global index).
    """
    count = cfg.sft_episodes // mesh.axis_size(axis)
    index = mesh.global_index(count, axis)
    if agent.examples is not None:
        row = drawn(key, index, agent.examples.length.shape[0])
        return jax.tree.map(lambda x: x[row], agent.examples)
    player = agent.env.expert if cfg.sft_player == "expert" else agent.env.random_player
    return demonstrate(agent.env, agent.chat, agent.limits, player, key, index)


def imitation_gradient(
    whole: Params, episodes: Episodes, cfg: AgentConfig, layout: Layout
) -> tuple[Params, Metrics]:
    """Of what is trained of whole parameters, summed over pieces and devices."""

    def loss(part, piece):
        return imitation_loss(whole.with_trained(part), piece, cfg)

    return sgd.gradient(loss, whole.trained(), episodes, cfg.micro_batch, layout.sum)


def imitation_loss(params: Params, episodes: Episodes, cfg: AgentConfig) -> tuple[Sums, Metrics]:
    """Cross-entropy of the player's tokens.

    With sft_on="all" of the environment's tokens too: how a game answers is learned with its form,
    but nothing of what to play. Random moves are noise that cannot be predicted; `sft_moves` below
    1 lets more of the gradient come from the answers. A response that did not fit is not learned:
    it has no end of turn.
    """
    action = episodes.action[:, 1:]
    place = jnp.arange(1, episodes.token.shape[1], dtype=jnp.int32)
    inside = without_unread(place < episodes.length[:, None], episodes, cfg)
    answers = inside & ~action & (cfg.sft_on == "all")
    moves = objectives.without_cut(inside & action, episodes.turn[:, 1:], episodes.cut)
    log_prob, entropy, _ = predict(params.policy, episodes.token, moves | answers, cfg, 1.0)
    total, count = objectives.sft_loss(log_prob, moves)
    if cfg.sft_on == "all":
        of_answers = objectives.sft_loss(log_prob, answers)
        total = cfg.sft_moves * total + of_answers.numerator
        count = cfg.sft_moves * count + of_answers.denominator
    return Sums(total, count), token_means(moves | answers, entropy=entropy)


def with_rehearsal(
    grads: Params, whole: Params, episodes: Episodes | None, cfg: AgentConfig, layout: Layout
) -> Params:
    """A gradient, with that of imitating scripted episodes if there are any.

    Random but valid play keeps every move possible: a policy that has become sure of a poor
    strategy still meets better ones. With sft_on="all" the model goes on to predict what the game
    answers, for which it must know what the answers so far leave open.
    """
    if episodes is None:
        return grads
    assert cfg.sft_coef is not None
    extra, _ = imitation_gradient(whole, episodes, cfg, layout)
    return jax.tree.map(lambda g, e: (g + cfg.sft_coef * e).astype(g.dtype), grads, extra)


def rehearsal(
    key: jax.Array, count: int, *, cfg: AgentConfig, agent: Agent, axis: str | None
) -> Episodes | None:
    """Fresh scripted episodes, leaves [count, n, ...], a part for each minibatch; None without."""
    if cfg.sft_coef is None:
        return None
    return sgd.in_pieces(scripted(key, cfg=cfg, agent=agent, axis=axis), count)
