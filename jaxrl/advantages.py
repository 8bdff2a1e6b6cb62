"""Advantages of language agents: per group of samples, per batch, per turn.

`P` prompts of `G` samples are `N` = P*G episodes, episode p*G + g the g-th sample of prompt p; a
group is never split over devices. `U` is the most turns an episode can have; a mask [N, U] keeps
those that were played, which come first. What is divided by a batch-wide number takes `axis`, the
mesh axis that the episodes are spread over: the number is then that of all devices.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def group_advantage(
    episode_return: Float[Array, " N"],
    group_size: int,
    divide_by_std: bool = True,
    eps: float = 1e-6,
    supposed: Float[Array, ""] | float | None = None,
    known: Bool[Array, " N"] | None = None,
) -> Float[Array, " N"]:
    """Return minus the mean of its group, over the group's population std where asked for.

    Section 4.1.2 of arXiv:2402.03300 with the std; arXiv:2503.20783 argues for going without. A
    group whose returns are all equal has advantage 0 exactly. With `supposed` mean and std are
    those of the group and one more episode of that return (arXiv:2509.18851, section 3.2): a group
    that failed as one man is then below the mean. Episodes whose return is not `known` have
    advantage 0, and the others are compared as a smaller group.
    """
    group = _groups(episode_return, group_size)
    kept = None if known is None else _groups(known, group_size)
    if supposed is not None:
        more = jnp.full((len(group), 1), supposed, group.dtype)
        group = jnp.concatenate([group, more], 1)
        kept = None if kept is None else jnp.pad(kept, ((0, 0), (0, 1)), constant_values=True)
    centred = _centred(group, kept)
    if divide_by_std:
        square = jnp.square(centred)
        std = jnp.sqrt(jnp.mean(square, 1, keepdims=True) * _surplus(kept))
        centred = centred / (std + eps)
    return centred[:, :group_size].reshape(-1)


def rloo_advantage(
    episode_return: Float[Array, " N"], group_size: int, known: Bool[Array, " N"] | None = None
) -> Float[Array, " N"]:
    """Return minus the mean of the others in its group (arXiv:2402.14740), of those `known`."""
    group = _groups(episode_return, group_size)
    if known is None:
        return (_centred(group) * (group_size / (group_size - 1))).reshape(-1)
    kept = _groups(known, group_size)
    count = jnp.sum(kept, 1, keepdims=True, dtype=group.dtype)
    return (_centred(group, kept) * (count / jnp.maximum(count - 1, 1))).reshape(-1)


def best_of_groups(
    episode_return: Float[Array, " N"],
    group_size: int,
    count: int,
    divide_by_std: bool = True,
    known: Bool[Array, " N"] | None = None,
) -> tuple[Int[Array, " M"], Float[Array, " M"]]:
    """(the `count` episodes of each group with the largest return, their `group_advantage`).

    Of equal returns the first is taken, of those not `known` none if there are others. M = P *
    count.
    """
    relative = group_advantage(episode_return, group_size, divide_by_std, known=known)
    if known is not None:
        relative = jnp.where(known, relative, -jnp.inf)
    best, place = jax.lax.top_k(relative.reshape(-1, group_size), count)
    first = jnp.arange(len(best))[:, None] * group_size
    return (first + place).reshape(-1), best.reshape(-1)


def uniform_groups(
    episode_return: Float[Array, " N"], group_size: int, known: Bool[Array, " N"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(groups whose returns are all equal, so that nothing is learned from them; groups)."""
    kept = None if known is None else _groups(known, group_size)
    group = _groups(episode_return, group_size)
    uniform = jnp.all(_centred(group, kept) == 0, axis=1)
    return jnp.sum(uniform, dtype=jnp.float32), jnp.float32(len(group))


def whiten(
    x: Float[Array, "*N"],
    mask: Bool[Array, "*N"],
    axis: str | None = None,
    sample_std: bool = False,
    eps: float = 1e-8,
) -> Float[Array, "*N"]:
    """(x - mean) / std over what the masks of all devices keep; 0 elsewhere.

    The population std, or with `sample_std` that with n - 1: implementations differ. Where every
    entry is the same the result is 0 exactly.
    """
    # From the least entry on: equal entries become 0, of which the mean loses no digit.
    least = _least(jnp.min(x, initial=jnp.inf, where=mask), axis)
    x = jnp.where(mask, x - least, 0.0)
    count = _total(jnp.sum(mask, dtype=x.dtype), axis)
    centred = jnp.where(mask, x - _total(jnp.sum(x), axis) / jnp.maximum(count, 1.0), 0.0)
    squares = _total(jnp.sum(jnp.square(centred)), axis)
    std = jnp.sqrt(squares / jnp.maximum(count - float(sample_std), 1.0))
    return centred / (std + eps)


def turn_return(
    reward: Float[Array, "N U"], mask: Bool[Array, "N U"], gamma: float
) -> Float[Array, "N U"]:
    """Discounted sum of the rewards from each turn on; 0 where no turn was played."""
    reward = jnp.where(mask, reward, 0.0)
    return _trace(reward, gamma)


def rebn_advantage(
    reward: Float[Array, "N U"],
    mask: Bool[Array, "N U"],
    gamma: float,
    axis: str | None = None,
    sample_std: bool = False,
) -> Float[Array, "N U"]:
    """Return batch normalisation: returns to go, whitened over all turns of the batch.

    Of arXiv:2510.01051. With gamma < 1 a win is worth the more the sooner it comes.
    """
    return whiten(turn_return(reward, mask, gamma), mask, axis, sample_std)


def turn_gae(
    reward: Float[Array, "N U"],
    value: Float[Array, "N U"],
    mask: Bool[Array, "N U"],
    truncated: Bool[Array, " N"],
    last_value: Float[Array, " N"],
    gamma: float,
    lam: float,
) -> Float[Array, "N U"]:
    """Generalized advantage estimation with a turn as the step; 0 where no turn was played.

    value[:, u] is that of the prompt of turn u. An episode that terminated bootstraps from 0, a
    truncated one from last_value, that of where its last turn led.
    """
    followed = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    following = jnp.pad(value[:, 1:], ((0, 0), (0, 1)))
    at_end = jnp.where(truncated, last_value, 0.0)[:, None]
    next_value = jnp.where(followed, following, at_end)
    delta = jnp.where(mask, reward + gamma * next_value - value, 0.0)
    return _trace(delta, gamma * lam)


def kl_in_reward(
    reward: Float[Array, "N U"],
    log_prob: Float[Array, "N S"],
    ref_log_prob: Float[Array, "N S"],
    turn: Int[Array, "N S"],
    mask: Bool[Array, "N S"],
    beta: float,
) -> Float[Array, "N U"]:
    """Reward minus beta times the sum of log_prob - ref_log_prob over each turn's own tokens.

    `log_prob` is that of the policy which sampled the tokens, `turn` the turn of each, and `mask`
    keeps what was sampled. The k1 estimator: as a loss its gradient would have mean 0.
    """
    k1 = jax.lax.stop_gradient(jnp.where(mask, log_prob - ref_log_prob, 0.0))
    row = jnp.arange(len(turn))[:, None]
    return reward.at[row, jnp.where(mask, turn, 0)].add(-beta * k1)


def token_reward(
    reward: Float[Array, "N U"],
    kl: Float[Array, "N S"],
    turn: Int[Array, "N S"],
    mask: Bool[Array, "N S"],
    beta: float,
) -> Float[Array, "N S"]:
    """-beta * kl at each sampled token, and a turn's reward at the last of its tokens."""
    following = jnp.pad(mask[:, 1:] & (turn[:, 1:] == turn[:, :-1]), ((0, 0), (0, 1)))
    paid = to_tokens(reward, turn, mask & ~following)
    return paid - beta * jnp.where(mask, kl, 0.0)


def token_gae(
    reward: Float[Array, "N S"],
    value: Float[Array, "N S"],
    mask: Bool[Array, "N S"],
    gamma: float,
    lam: float,
) -> Float[Array, "N S"]:
    """Generalized advantage estimation with a sampled token as the step; 0 elsewhere.

    value[:, s] is that before token s is drawn; after a row's last sampled token it is 0. What the
    environment says in between is part of the step before.
    """

    def backward(carry, step):
        next_value, trace = carry
        reward, value, here = step
        now = reward + gamma * next_value - value + gamma * lam * trace
        return (jnp.where(here, value, next_value), jnp.where(here, now, trace)), now

    end = jnp.zeros_like(reward[:, 0])
    steps = (reward.T, value.T, mask.T)
    _, advantage = jax.lax.scan(backward, (end, end), steps, reverse=True, unroll=8)
    return jnp.where(mask, advantage.T, 0.0)


def to_tokens(
    advantage: Float[Array, "N U"], turn: Int[Array, "N S"], mask: Bool[Array, "N S"]
) -> Float[Array, "N S"]:
    """Every sampled token gets the advantage of its turn, every other token 0."""
    token = jnp.take_along_axis(advantage, jnp.where(mask, turn, 0), axis=1)
    return jnp.where(mask, token, 0.0)


def _groups(episode_return: jax.Array, group_size: int) -> jax.Array:
    """[P, G]; ValueError for a group of one, which has nothing to be compared with."""
    episodes = len(episode_return)
    if group_size < 2 or episodes % group_size:
        raise ValueError(
            f"group_size={group_size} must be at least 2 and divide the number of episodes, "
            f"{episodes}; try group_size=8 and a multiple of 8 episodes."
        )
    return episode_return.reshape(-1, group_size)


def _centred(group: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """[P, G] minus the mean of each group: 0 exactly where all of a group are equal.

    Of those that a mask keeps; 0 elsewhere.
    """
    if kept is None:
        group = group - group[:, :1]  # a mean of equal numbers need not be that number
        return group - jnp.mean(group, 1, keepdims=True)
    first = jnp.take_along_axis(group, jnp.argmax(kept, 1, keepdims=True), 1)
    group = jnp.where(kept, group - first, 0.0)
    mean = jnp.mean(group, 1, keepdims=True) * _surplus(kept)
    return jnp.where(kept, group - mean, 0.0)


def _surplus(kept: jax.Array | None) -> jax.Array | float:
    """[P, 1]: by how much a mean over all of a group, the others being 0, is too small."""
    if kept is None:
        return 1.0
    count = jnp.sum(kept, 1, keepdims=True, dtype=jnp.float32)
    return kept.shape[1] / jnp.maximum(count, 1.0)


def _trace(x: jax.Array, decay: float) -> jax.Array:
    """y[:, u] = x[:, u] + decay * y[:, u + 1]: 0 where x is 0 from there on."""

    def backward(y, x):
        y = x + decay * y
        return y, y

    return jax.lax.scan(backward, jnp.zeros_like(x[:, 0]), x.T, reverse=True, unroll=8)[1].T


def _total(x: jax.Array, axis: str | None) -> jax.Array:
    return x if axis is None else jax.lax.psum(x, axis)


def _least(x: jax.Array, axis: str | None) -> jax.Array:
    return x if axis is None else jax.lax.pmin(x, axis)
