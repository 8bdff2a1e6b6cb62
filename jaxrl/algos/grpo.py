"""Group relative policy optimisation of a language agent (arXiv:2402.03300), many turns an episode.

Differences from the paper: the mean is over the tokens of the global batch (arXiv:2503.14476), the
clip is wider above than below, there is no KL term unless asked for, and an episode may have many
turns, of which the policy's own tokens alone count. A warm start by supervised steps on scripted
play belongs to the same program. With `best` those of each group that did best are
imitated instead, the more the more they are above it (of arXiv:2304.06767 and arXiv:2504.13818):
where almost everything fails, that learns sooner.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, mesh, objectives
from jaxrl.lm.agent import Agent, MinibatchConfig, State, Weights, optimizer, weights_at
from jaxrl.lm.episodes import Episodes
from jaxrl.lm.learn import Rows, descend, gradient, map_pieces, predict, shuffled
from jaxrl.lm.model import Transformer
from jaxrl.lm.play import play
from jaxrl.lm.report import played_metrics, shown, to_token_mask
from jaxrl.lm.shards import Layout
from jaxrl.lm.warm_up import after_warm_up, scripted_minibatches, with_scripted


@dataclass(frozen=True)
class Config(MinibatchConfig):
    group_size: int = 8  # episodes from each of the starts, G
    best: int = 0  # imitate so many of each group, those that did best; 0: climb by all of them
    divide_by_std: bool = True  # advantages over the group's standard deviation
    surrogate: Literal["clip", "gspo", "cispo"] = "clip"  # cispo's cap is 1 + clip_high
    mean: Literal["token", "sequence", "constant"] = "token"  # how tokens are averaged
    kl: Literal["none", "k1", "k2", "k3"] = "none"  # to the model at the start; k1 in the reward
    kl_coef: float = 0.001  # its weight
    overlong: Literal["keep", "mask", "penalise"] = "keep"  # responses the length limit cut

    def __post_init__(self):
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size} must be at least 2; try 8.")
        if not 0 <= self.best < self.group_size:
            raise ValueError(f"best={self.best} must be 0 to group_size - 1; try best=1.")
        if self.best and self.kl == "k1":
            raise ValueError("kl='k1' changes rewards, by which the best are chosen; try kl='k3'.")
        if self.best and self.surrogate != "clip":
            raise ValueError(
                f"surrogate={self.surrogate} is not used where the best are imitated; leave it out."
            )
        config.check_positive("kl_coef", self.kl_coef, 0.001)
        super().__post_init__()

    @property
    def episodes(self) -> int:
        return self.num_prompts * self.group_size

    @property
    def minibatch(self) -> int:
        return self.num_prompts * self.learned_of_group // self.num_minibatches

    @property
    def learned_of_group(self) -> int:
        """Episodes of a group that are learned from."""
        return self.best or self.group_size


def specs(cfg: Config, agent: Agent, devices: int) -> State:
    """How a State is laid out on a mesh whose seeds have this many devices each."""
    return agent.specs(State, partial(init, cfg=cfg, agent=agent), devices)


def init(key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None) -> State:
    """A fresh State with random weights; `jaxrl.lm.agent.pour` gives it others."""
    return agent.start(
        key, optimizer(cfg, cfg.num_steps), keep_reference=cfg.kl != "none", axis=axis
    )


def update(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None = None
) -> tuple[State, dict[str, jax.Array]]:
    """One iteration: `sft_steps` of the warm start first, then of `improve`."""
    improving = partial(improve, cfg=cfg, agent=agent, axis=axis)
    return after_warm_up(improving, state, key, cfg=cfg, agent=agent, axis=axis)


def improve(
    state: State, key: jax.Array, *, cfg: Config, agent: Agent, axis: str | None
) -> tuple[State, dict[str, jax.Array]]:
    """Play P*G episodes, compare each with its group, climb."""
    play_key, order_key, scripted_key = jax.random.split(key, 3)
    layout = agent.layout(axis)
    whole = layout.gather(state.model)
    prompts = cfg.num_prompts // mesh.axis_size(axis)
    episodes, work = play(
        whole,
        agent.env,
        agent.chat,
        agent.limits,
        play_key,
        mesh.global_index(prompts, axis),
        group_size=cfg.group_size,
        num_lanes=cfg.num_lanes // mesh.axis_size(axis),
        temperature=cfg.temperature,
        refill_at=cfg.refill_at,
    )
    rows = prepare(whole, layout.gather(state.reference), episodes, cfg)
    order = shuffled(
        order_key,
        mesh.global_index(prompts, axis),
        cfg.num_epochs,
        cfg.num_minibatches,
        cfg.learned_of_group,
    )
    examples = scripted_minibatches(scripted_key, cfg.num_minibatches, cfg, agent, axis)
    weights = weights_at(cfg, state.iteration)

    def step(carry, indices):
        index, minibatch = indices
        batch = jax.tree.map(lambda x: x[index], rows)
        few = jax.tree.map(lambda x: x[minibatch], examples)
        return learn(carry, batch, few, weights, cfg=cfg, layout=layout)

    steps = (order, jnp.arange(cfg.num_steps) % cfg.num_minibatches)
    carry, learning = jax.lax.scan(step, (state.model, state.opt_state), steps)
    state = state.replace(
        model=carry[0],
        opt_state=carry[1],
        shown=shown(episodes, agent.num_shown, axis),
        iteration=state.iteration + 1,
    )
    metrics = {name: jnp.mean(value) for name, value in learning.items()}
    uniform = advantages.uniform_groups(episodes.episode_return, cfg.group_size)
    metrics["uniform_groups"] = objectives.quotient(mesh.psum(uniform, axis))
    return state, metrics | played_metrics(episodes, work, rows.mask, axis)


def prepare(
    model: Transformer, reference: Transformer | None, episodes: Episodes, cfg: Config
) -> Rows:
    """What is learned from. One step an iteration is on-policy: it needs no earlier log-prob."""
    reward = episodes.reward
    if cfg.overlong == "penalise":
        reward = reward - episodes.cut
    relative = None
    if cfg.best:
        index, relative = advantages.best_of_groups(
            jnp.sum(reward, 1), cfg.group_size, cfg.best, cfg.divide_by_std
        )
        episodes = jax.tree.map(lambda x: x[index], episodes)
    token, length = episodes.token, episodes.length

    def predicted(model):
        def piece(rows):
            token, length = rows
            return predict(model, token, length, cfg.temperature, cfg.chunk, cfg.remat)[0]

        return map_pieces(piece, (token, length), cfg.micro_batch)

    sampled = episodes.log_prob[:, 1:]
    log_prob = sampled if cfg.num_steps == 1 else predicted(model)
    ref_log_prob = log_prob if reference is None else predicted(reference)
    mask, turn = to_token_mask(episodes, keep_cut=cfg.overlong != "mask")
    if cfg.kl == "k1":
        reward = advantages.kl_in_reward(reward, log_prob, ref_log_prob, turn, mask, cfg.kl_coef)
    if relative is None:
        total = jnp.sum(reward, 1)
        relative = advantages.group_advantage(total, cfg.group_size, cfg.divide_by_std)
    else:
        mask = mask & (relative > 0)[:, None]
    advantage = jnp.where(mask, relative[:, None], 0.0)
    return Rows(token, length, mask, sampled, log_prob, advantage, ref_log_prob)


def learn(
    carry: tuple,
    batch: Rows,
    examples: Episodes | None,
    weights: Weights,
    *,
    cfg: Config,
    layout: Layout,
) -> tuple[tuple, dict[str, jax.Array]]:
    """One optimizer step; its only collective is the sum of gradients and metrics."""
    model, opt_state = carry
    whole = layout.gather(model)
    objective = partial(loss, entropy_coef=weights.entropy, cfg=cfg)
    grads, metrics = gradient(objective, whole, batch, cfg.micro_batch, layout.sum)
    grads = with_scripted(grads, whole, examples, weights.scripted, cfg, layout)
    norm = layout.norm(grads)
    transform = optimizer(cfg, cfg.num_steps)
    model, opt_state = descend(transform, grads, norm, cfg.max_grad_norm, opt_state, model)
    metrics |= {"grad_norm": norm, "param_norm": layout.norm(model)}
    return (model, opt_state), metrics


def loss(
    model: Transformer, batch: Rows, entropy_coef: jax.Array, cfg: Config
) -> tuple[jax.Array, tuple[jax.Array, dict[str, objectives.Sums]]]:
    """The loss as a sum, (its denominator, the metrics as sums)."""
    log_prob, entropy = predict(
        model, batch.token, batch.length, cfg.temperature, cfg.chunk, cfg.remat
    )
    mask, advantage = batch.mask, batch.advantage
    old_log_prob = jax.lax.stop_gradient(log_prob) if cfg.num_steps == 1 else batch.log_prob
    ratio_of = objectives.token_log_ratio
    if cfg.surrogate == "gspo":
        ratio_of = objectives.sequence_log_ratio
    log_ratio = ratio_of(log_prob, old_log_prob, mask)
    if cfg.best:
        token_loss = losses.policy_gradient(log_prob, advantage)
    elif cfg.surrogate == "cispo":
        token_loss = losses.cispo(log_prob, log_ratio, advantage, 1.0 + cfg.clip_high)
    else:
        token_loss = losses.clipped_ratio(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    if cfg.kl in ("k2", "k3"):
        estimate = losses.kl_k2 if cfg.kl == "k2" else losses.kl_k3
        token_loss = token_loss + cfg.kl_coef * estimate(log_prob, batch.ref_log_prob)
    token_loss = token_loss - entropy_coef * entropy
    means = {
        "token": objectives.token_mean,
        "sequence": objectives.sequence_mean,
        "constant": partial(objectives.constant_mean, length=mask.shape[1]),
    }
    numerator, denominator = means[cfg.mean](token_loss, mask)
    clipped = losses.outside_clip(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    over_tokens = {
        "entropy": entropy,
        "approx_kl": losses.approx_kl(log_prob, old_log_prob),
        "clip_fraction": clipped.astype(jnp.float32),
        "ratio_error": jnp.abs(jnp.expm1(log_ratio)),
        "log_prob_gap": jnp.abs(old_log_prob - batch.sampled_log_prob),
        "kl_to_reference": losses.kl_k3(log_prob, batch.ref_log_prob),
    }
    if cfg.kl == "none":
        del over_tokens["kl_to_reference"]
    metrics = {name: objectives.token_mean(x, mask) for name, x in over_tokens.items()}
    return numerator, (denominator, metrics | {"loss": (numerator, denominator)})
