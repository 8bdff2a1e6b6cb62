"""One iteration of an agent that learns from its own episodes: play, prepare, descend, report."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import mesh, metrics, sgd
from jaxrl.lm.learn.agent import Agent, State
from jaxrl.lm.learn.batch import drawn, shuffled
from jaxrl.lm.learn.imitation import imitate, rehearsal, with_rehearsal
from jaxrl.lm.learn.judge import paid_by, scores
from jaxrl.lm.learn.optimizer import descend
from jaxrl.lm.learn.options import GroupConfig
from jaxrl.lm.learn.report import played_metrics, shown
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.transformer import unstack
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import Metrics, Sums, mean

# An algorithm's own: (params, reference, episodes, cfg, axis) -> what is learned from, metrics of
# this device; and (params, some rows of it, cfg) -> the loss, metrics.
Prepare = Callable[..., tuple[Any, Metrics]]
Loss = Callable[..., tuple[Sums, Metrics]]
# (some rows of it, cfg) -> whether none of them has a gradient, and their loss then.
Idle = Callable[..., tuple[jax.Array, Sums]]


def update(
    prepare: Prepare,
    loss: Loss,
    state: State,
    key: jax.Array,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None = None,
    idle: Idle | None = None,
    played: tuple[Episodes, Work] | None = None,
) -> tuple[State, Metrics]:
    """One iteration: of the warm start while its `sft_steps` last, then of `improve`.

    Both are branches of the one program. With what was `played` on the host it is of `improve`.
    """
    how: Any = {"cfg": cfg, "agent": agent, "axis": axis}
    improving = jax.jit(partial(improve, prepare, loss, idle=idle, **how))  # traced once, below too
    if played is not None:
        return improving(state, key, played=played)
    if not cfg.sft_steps:
        return improving(state, key)
    _, like = jax.eval_shape(improving, state, key)
    warming = partial(warm_up, like=like, **how)
    return jax.lax.cond(state.iteration < cfg.sft_steps, warming, improving, state, key)


def warm_up(
    state: State,
    key: jax.Array,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None,
    like: Metrics,
) -> tuple[State, Metrics]:
    """One supervised step on fresh scripted episodes; of the metrics `like`, those that it has."""
    state, _, own = imitate(state, key, cfg=cfg, agent=agent, axis=axis)
    if state.reference is not None:
        state = state.replace(reference=state.params.replace(critic=None))
    unknown = Sums(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))
    return state, {name: own.get(name, unknown) for name in like}


def improve(
    prepare: Prepare,
    loss: Loss,
    state: State,
    key: jax.Array,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None,
    idle: Idle | None = None,
    played: tuple[Episodes, Work] | None = None,
) -> tuple[State, Metrics]:
    """Play P*G episodes, see what was worth more than expected, learn it in minibatches."""
    play_key, order_key, scripted_key = jax.random.split(key, 3)
    cfg = cfg.at_iteration(state.iteration)
    layout = agent.layout(cfg, axis)
    whole, reference = in_layers(layout.gather(state.params), cfg), layout.gather(state.reference)
    index = mesh.global_index(cfg.num_prompts // mesh.axis_size(axis), axis)
    if played is None:
        player = reference if cfg.reference_plays else whole
        played = agent.play(player.policy, play_key, index, cfg, cfg.group_size, axis)
    episodes, work = played
    paid, known = episodes, {}
    if state.judge is not None:
        score = scores(agent.whole_judge(state.judge, axis), episodes, cfg, cfg.group_size)
        paid, known["score"] = paid_by(score, episodes), mean(score)
    rows, more = prepare(whole, reference, paid, cfg, axis)
    known |= more
    known |= played_metrics(episodes, work, rows.mask)
    order = shuffled(order_key, index, cfg.num_epochs, cfg.num_minibatches, cfg.learned_of_group)
    examples = rehearsal(scripted_key, cfg.num_minibatches, cfg=cfg, agent=agent, axis=axis)
    how: Any = {"cfg": cfg, "agent": agent, "axis": axis, "idle": idle}
    state, learning = take_steps(loss, state, whole, rows, order, examples, **how)
    state = state.replace(shown=shown(episodes, agent.num_shown, axis))
    return state, metrics.merged(learning, mesh.psum(known, axis))


def update_from_groups(
    prepare: Prepare,
    loss: Loss,
    state: State,
    key: jax.Array,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None = None,
    played: tuple[Episodes, Work] | None = None,
) -> tuple[State, Metrics]:
    """One iteration on P fresh groups of play, as `update`; or of the given ones, if there are."""
    how: Any = {"cfg": cfg, "agent": agent, "axis": axis}
    if agent.examples is not None:
        return improve_on_examples(prepare, loss, state, key, **how)
    return update(prepare, loss, state, key, **how, played=played)


def improve_on_examples(
    prepare: Prepare,
    loss: Loss,
    state: State,
    key: jax.Array,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None,
) -> tuple[State, Metrics]:
    """The same of groups that nobody has played: P of the agent's examples, drawn at random.

    The rows of a group lie side by side. Drawn with replacement, each by (key, global index).
    """
    assert agent.examples is not None
    draw_key, order_key = jax.random.split(key)
    cfg = cfg.at_iteration(state.iteration)
    layout = agent.layout(cfg, axis)
    whole = in_layers(layout.gather(state.params), cfg)
    index = mesh.global_index(cfg.num_prompts // mesh.axis_size(axis), axis)
    row = drawn(draw_key, index, agent.examples.length.shape[0] // cfg.group_size, cfg.group_size)
    episodes = jax.tree.map(lambda x: x[row], agent.examples)
    rows, known = prepare(whole, layout.gather(state.reference), episodes, cfg, axis)
    order = shuffled(order_key, index, cfg.num_epochs, cfg.num_minibatches, cfg.learned_of_group)
    state, learning = take_steps(
        loss, state, whole, rows, order, None, cfg=cfg, agent=agent, axis=axis
    )
    return state, metrics.merged(learning, mesh.psum(known, axis))


def take_steps(
    loss: Loss,
    state: State,
    whole: Params,
    rows: Any,
    order: jax.Array,
    examples: Any,
    *,
    cfg: GroupConfig,
    agent: Agent,
    axis: str | None,
    idle: Idle | None = None,
) -> tuple[State, Metrics]:
    """An optimizer step on each minibatch of rows that `order` lists.

    All numbers of `cfg` are the iteration's. `examples` are rehearsed beside, a part for each
    minibatch of an epoch.
    """

    def step(carry, indices):
        """One optimizer step; its only collective is the sum of gradients and metrics."""
        index, minibatch = indices
        batch = sgd.take_rows(rows, index)
        scripted = jax.tree.map(lambda x: x[minibatch], examples)
        params, opt_state = carry
        params, opt_state, learning = learn(
            loss, params, opt_state, batch, scripted, idle=idle, frozen=frozen, **how
        )
        return (params, opt_state), learning

    frozen = whole if agent.model_config.lora_rank else None
    idle = None if cfg.keeps_reference else idle  # a KL pulls at every row
    how: Any = {"cfg": cfg, "layout": agent.layout(cfg, axis)}
    minibatch = jnp.arange(cfg.num_steps, dtype=jnp.int32) % cfg.num_minibatches
    carry = (state.params, state.opt_state)
    (params, opt_state), learning = jax.lax.scan(step, carry, (order, minibatch))
    state = state.replace(params=params, opt_state=opt_state, iteration=state.iteration + 1)
    return state, metrics.add_up(metrics.until_broken(learning))


def learn(
    loss: Loss,
    params: Any,
    opt_state: Any,
    batch: Any,
    examples: Any,
    *,
    cfg: GroupConfig,
    layout: Any,
    idle: Idle | None = None,
    frozen: Any = None,
) -> tuple[Any, Any, Metrics]:
    """(parameters, optimiser state, metrics) after one step; all numbers are the iteration's.

    Rows that are `idle` come last, and the pieces that hold no others are not computed. With
    adapters the rest of the parameters is that of `frozen`, where there is one.
    """
    whole = layout.gather(params)
    base = whole if frozen is None else frozen
    is_idle = idle and partial(idle, cfg=cfg)
    if is_idle is not None:
        batch = idle_last(batch, is_idle, cfg.prompt_shared_by)

    def loss_of_part(part, piece):
        return loss(base.with_trained(part), piece, cfg)

    grads, known = sgd.gradient(
        loss_of_part, whole.trained(), batch, cfg.micro_batch, layout.sum, is_idle
    )
    grads = with_rehearsal(grads, whole, examples, cfg, layout)
    params, opt_state, step = descend(grads, params, opt_state, cfg=cfg, layout=layout)
    return params, opt_state, known | step


def idle_last(batch: Any, idle: Idle, size: int) -> Any:
    """The rows in another order: those with a gradient first; `size` of them stay side by side."""
    groups = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
    still, _ = jax.vmap(idle)(groups)
    order = jnp.argsort(still, stable=True)
    return jax.tree.map(lambda x, like: x[order].reshape(like.shape), groups, batch)


def in_layers(whole: Params, cfg: GroupConfig) -> Params:
    """Whole parameters with the policy's layers taken apart, where none of its matrices is trained.

    Once for an iteration: what plays and what learns read the same copy.
    """
    if cfg.remat or not whole.policy.cfg.lora_rank:
        return whole
    return whole.replace(policy=unstack(whole.policy))
