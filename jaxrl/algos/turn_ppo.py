"""PPO of a language agent (arXiv:1707.06347) whose critic judges turns, not tokens.

A turn is the step of generalized advantage estimation: the critic, a linear head on the policy's
own layers, is read at the last token before each response. All tokens of a response share their
turn's advantage. The mean is over the tokens of the global batch.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxrl import advantages, config, losses, mesh, objectives, returns
from jaxrl.lm import agent as agents
from jaxrl.lm.agent import Agent, MinibatchConfig, Weights, optimizer, weights_at
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.learn import Rows, descend, gradient, hidden_states, map_pieces, shuffled
from jaxrl.lm.log_prob import token_log_prob
from jaxrl.lm.model import Transformer
from jaxrl.lm.play import play
from jaxrl.lm.report import played_metrics, shown, to_token_mask
from jaxrl.lm.shards import Layout
from jaxrl.lm.warm_up import after_warm_up, scripted_minibatches, with_scripted


@dataclass(frozen=True)
class Config(MinibatchConfig):
    num_prompts: int = 256  # episodes in an iteration, each from another start
    num_epochs: int = 2  # passes over an iteration's episodes
    num_minibatches: int = 4  # optimizer steps per pass
    gamma: float = 0.95  # discount per turn
    gae_lambda: float = 0.95  # weight of longer returns, over turns
    value_coef: float = 1.0  # of the squared error at each turn, averaged over tokens like the rest
    entropy_coef: float = 0.01  # bonus for the entropy of every token
    overlong: Literal["keep", "mask", "penalise"] = "penalise"  # responses the length limit cut

    def __post_init__(self):
        super().__post_init__()
        for name in ("gamma", "gae_lambda"):
            config.check_range(name, getattr(self, name), 0.0, 1.0, 0.95)
        config.check_range("value_coef", self.value_coef, 0.0, float("inf"), 1.0)

    @property
    def episodes(self) -> int:
        return self.num_prompts


class Critic(flax.struct.PyTreeNode):
    """The value of what the last token stands at the end of."""

    weight: jax.Array  # [D]
    bias: jax.Array  # []

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """float32 [...] of hidden states [..., D]."""
        return hidden.astype(jnp.float32) @ self.weight + self.bias


class State(agents.State):
    """All that must survive a crash."""

    critic: Critic
    critic_opt_state: Any


class TurnRows(Rows):
    """N sequences with what the critic learns from."""

    opens: jax.Array  # bool [N, C-1]: the token is a response's first
    value_target: jax.Array  # float32 [N, C-1]: there


def specs(cfg: Config, agent: Agent, devices: int) -> State:
    """How a State is laid out on a mesh whose seeds have this many devices each."""
    return agent.specs(State, partial(init, cfg=cfg, agent=agent), devices)


def init(key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None) -> State:
    """A fresh State, the critic 0 everywhere; `jaxrl.lm.agent.pour` gives it other weights."""
    transform = optimizer(cfg, cfg.num_steps)
    start = agent.start(key, transform, keep_reference=False, axis=axis)
    critic = Critic(jnp.zeros(agent.model_config.width), jnp.zeros(()))
    kept = {name: getattr(start, name) for name in agents.State.__dataclass_fields__}
    return State(**kept, critic=critic, critic_opt_state=transform.init(critic))  # pyright: ignore


def update(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None
) -> tuple[State, dict[str, jax.Array]]:
    """One iteration: `sft_steps` of the warm start first, then of `improve`."""
    improving = partial(improve, cfg=cfg, agent=agent, axis=axis)
    return after_warm_up(improving, state, key, cfg=cfg, agent=agent, axis=axis)  # pyright: ignore


def improve(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None
) -> tuple[State, dict[str, jax.Array]]:
    """Play, judge each turn, climb."""
    play_key, order_key, scripted_key = jax.random.split(key, 3)
    layout = agent.layout(axis)
    whole = layout.gather(state.model)
    index = mesh.global_index(cfg.num_prompts // mesh.axis_size(axis), axis)
    episodes, work = play(
        whole,
        agent.env,
        agent.chat,
        agent.limits,
        play_key,
        index,
        group_size=1,
        num_lanes=cfg.num_lanes // mesh.axis_size(axis),
        temperature=cfg.temperature,
        refill_at=cfg.refill_at,
    )
    rows, judged = prepare(whole, state.critic, episodes, cfg, axis)
    order = shuffled(order_key, index, cfg.num_epochs, cfg.num_minibatches)

    examples = scripted_minibatches(scripted_key, cfg.num_minibatches, cfg, agent, axis)
    weights = weights_at(cfg, state.iteration)

    def step(carry, indices):
        index, minibatch = indices
        batch = jax.tree.map(lambda x: x[index], rows)
        few = jax.tree.map(lambda x: x[minibatch], examples)
        return learn(carry, batch, few, weights, cfg=cfg, layout=layout)

    carry = (state.model, state.opt_state, state.critic, state.critic_opt_state)
    steps = (order, jnp.arange(cfg.num_steps) % cfg.num_minibatches)
    carry, learning = jax.lax.scan(step, carry, steps)
    state = state.replace(
        model=carry[0],
        opt_state=carry[1],
        critic=carry[2],
        critic_opt_state=carry[3],
        shown=shown(episodes, agent.num_shown, axis),
        iteration=state.iteration + 1,
    )
    metrics = {name: jnp.mean(value) for name, value in learning.items()}
    return state, metrics | judged | played_metrics(episodes, work, rows.mask, axis)


def prepare(
    model: Transformer, critic: Critic, episodes: Episodes, cfg: Config, axis: str | None
) -> tuple[TurnRows, dict[str, jax.Array]]:
    """What is learned from, and how well the critic knew it."""

    def piece(rows):
        token, length = rows
        hidden = hidden_states(model, token, length, cfg.remat)
        log_prob, _ = token_log_prob(model, hidden, token[:, 1:], cfg.chunk, cfg.temperature)
        value = critic(hidden)
        last = jnp.take_along_axis(value, length[:, None] - 1, 1, mode="clip")
        return log_prob, value, last[:, 0]

    log_prob, value, last_value = map_pieces(
        piece, (episodes.token, episodes.length), cfg.micro_batch
    )
    turn = episodes.turn[:, 1:]
    opens = first_tokens(episodes.action)[:, 1:]
    turn_value = at_turns(value, turn, opens, episodes.reward.shape[1])
    reward = episodes.reward - (episodes.cut if cfg.overlong == "penalise" else 0.0)
    advantage = advantages.turn_gae(
        reward,
        turn_value,
        episodes.played,
        episodes.truncated & ~episodes.terminated,
        last_value,
        cfg.gamma,
        cfg.gae_lambda,
    )
    target = jnp.where(episodes.played, advantage + turn_value, 0.0)
    mask, _ = to_token_mask(episodes, keep_cut=cfg.overlong != "mask")
    rows = TurnRows(
        token=episodes.token,
        length=episodes.length,
        mask=mask,
        sampled_log_prob=episodes.log_prob[:, 1:],
        log_prob=log_prob,
        advantage=advantages.to_tokens(
            advantages.whiten(advantage, episodes.played, axis), turn, mask
        ),
        ref_log_prob=log_prob,
        opens=opens,
        value_target=advantages.to_tokens(target, turn, opens),
    )
    return rows, {"explained_variance": explained(turn_value, target, episodes.played, axis)}


def explained(
    value: jax.Array, target: jax.Array, played: jax.Array, axis: str | None
) -> jax.Array:
    """Explained variance of the critic over all turns of all devices."""
    error = jnp.where(played, target - value, 0.0)
    sums = [(jnp.sum(x), jnp.sum(x**2)) for x in (target, error)]
    sums, count = mesh.psum((sums, jnp.sum(played, dtype=jnp.float32)), axis)
    return returns.explained_variance(*jax.tree.map(lambda x: x / count, sums))


def first_tokens(action: jax.Array) -> jax.Array:
    """bool [N, C]: the first token of each response; the environment's come between."""
    return action & ~jnp.pad(action[:, :-1], ((0, 0), (1, 0)))


def at_turns(value: jax.Array, turn: jax.Array, opens: jax.Array, num_turns: int) -> jax.Array:
    """[N, U]: the value before each response; 0 where no turn was played."""
    row = jnp.arange(len(turn))[:, None]
    at = jnp.where(opens, turn, num_turns)
    return jnp.zeros((len(turn), num_turns)).at[row, at].set(value, mode="drop")


def learn(
    carry: tuple,
    batch: TurnRows,
    examples: Episodes | None,
    weights: Weights,
    *,
    cfg: Config,
    layout: Layout,
) -> tuple[tuple, dict[str, jax.Array]]:
    """One optimizer step; its only collective is the sum of gradients and metrics."""
    model, opt_state, critic, critic_opt_state = carry
    whole = layout.gather(model)

    def total(grads, told):
        of_model, (of_critic, told) = layout.sum(grads[0], (grads[1], told))
        return (of_model, of_critic), told

    objective = partial(loss, entropy_coef=weights.entropy, cfg=cfg)
    (grads, of_critic), metrics = gradient(
        objective, (whole, critic), batch, cfg.micro_batch, total
    )
    grads = with_scripted(grads, whole, examples, weights.scripted, cfg, layout)
    norm, critic_norm = layout.norm(grads), optax.tree.norm(of_critic)
    transform = optimizer(cfg, cfg.num_steps)
    model, opt_state = descend(transform, grads, norm, cfg.max_grad_norm, opt_state, model)
    critic, critic_opt_state = descend(
        transform, of_critic, critic_norm, cfg.max_grad_norm, critic_opt_state, critic
    )
    metrics |= {"grad_norm": norm, "critic_grad_norm": critic_norm}
    metrics["param_norm"] = layout.norm(model)
    return (model, opt_state, critic, critic_opt_state), metrics


def loss(
    params: tuple[Transformer, Critic], batch: TurnRows, entropy_coef: jax.Array, cfg: Config
) -> tuple[jax.Array, tuple[jax.Array, dict[str, objectives.Sums]]]:
    """The loss as a sum, (its denominator, the metrics as sums)."""
    model, critic = params
    hidden = hidden_states(model, batch.token, batch.length, cfg.remat)
    log_prob, entropy = token_log_prob(
        model, hidden, batch.token[:, 1:], cfg.chunk, cfg.temperature
    )
    mask, advantage = batch.mask, batch.advantage
    log_ratio = objectives.token_log_ratio(log_prob, batch.log_prob, mask)
    token_loss = losses.clipped_ratio(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    numerator, count = objectives.token_mean(token_loss - entropy_coef * entropy, mask)
    value_loss, turns = objectives.token_mean(
        losses.value_loss(critic(hidden), batch.value_target), batch.opens
    )
    numerator = numerator + cfg.value_coef * value_loss
    clipped = losses.outside_clip(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    over_tokens = {
        "entropy": entropy,
        "approx_kl": losses.approx_kl(log_prob, batch.log_prob),
        "clip_fraction": clipped.astype(jnp.float32),
        "ratio_error": jnp.abs(jnp.expm1(log_ratio)),
        "log_prob_gap": jnp.abs(batch.log_prob - batch.sampled_log_prob),
    }
    metrics = {name: objectives.token_mean(x, mask) for name, x in over_tokens.items()}
    metrics |= {"loss": (numerator, count), "value_loss": (value_loss, turns)}
    return numerator, (count, metrics)
