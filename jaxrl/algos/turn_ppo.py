"""PPO of a language agent (arXiv:1707.06347) whose critic values turns, not tokens.

A turn is the step of generalized advantage estimation: the critic, a linear head on the policy's
own layers, is read at the last token before each response. All tokens of a response share their
turn's advantage. The mean is over the tokens of the global batch.
"""

from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, objectives, returns, sgd
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums


@config.pytree_dataclass
class Config(learn.MinibatchConfig):
    num_prompts: int = 256  # different episode starts in an iteration, P
    num_epochs: int = 2  # passes over an iteration's episodes
    num_minibatches: int = 4  # optimizer steps per pass
    gamma: float = 0.95  # discount per turn
    gae_lambda: float = 0.95  # weight of longer returns, over turns
    value_coef: float = 1.0  # of the squared error at each turn, averaged over tokens like the rest
    entropy_coef: float = 0.01  # bonus for the entropy of every token
    overlong: Literal["keep", "mask", "penalise"] = "penalise"  # responses the length limit cut

    has_critic: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("gamma", "gae_lambda"):
            config.check_range(name, getattr(self, name), 0.0, 1.0, 0.95)
        config.check_range("value_coef", self.value_coef, 0.0, 1e6, 1.0)


class TurnBatch(learn.TokenBatch, kw_only=True):
    """N sequences with what the critic learns from."""

    opens: jax.Array | None = None  # bool [N, C-1]: the token is a response's first
    value_target: jax.Array | None = None  # float32 [N, C-1]: there


def prepare(
    params: learn.Params, reference: None, episodes: learn.Episodes, cfg: Config, axis: str | None
) -> tuple[TurnBatch, Metrics]:
    """What is learned from, and how well the critic knew it."""
    del reference
    rows, turn = learn.learned_from(episodes, cfg)
    mask = rows.mask
    reading = partial(read, cfg=cfg)
    log_prob, value, last_value = sgd.map_pieces(
        reading, params, (rows, episodes.length), cfg.micro_batch
    )
    played = episodes.judged
    opens = first_tokens(episodes.action)[:, 1:]
    turn_value = at_turns(value, turn, opens, played.shape[1])
    reward = learn.learned_reward(episodes, cfg)
    advantage = advantages.turn_gae(
        reward, turn_value, played, episodes.truncated, last_value, cfg.gamma, cfg.gae_lambda
    )
    target = jnp.where(played, advantage + turn_value, 0.0)
    batch = TurnBatch(
        **vars(rows),
        sampled_log_prob=episodes.log_prob[:, 1:],
        advantage=advantages.to_tokens(advantages.whiten(advantage, played, axis), turn, mask),
        log_prob=log_prob,
        opens=learn.without_unread(opens, episodes, cfg),
        value_target=advantages.to_tokens(target, turn, opens),
    )
    known = returns.explained_variance(turn_value, target, played, axis)
    return batch, {"explained_variance": known}


def read(
    params: learn.Params, rows: tuple[learn.Sequences, jax.Array], cfg: Config
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(log-prob [N, C-1], value [N, C-1] before each token, value [N] at the end).

    Of rows and their lengths [N].
    """
    sequences, length = rows
    assert isinstance(params.critic, learn.Critic)
    log_prob, _, value = learn.predict_responses(params.policy, sequences, cfg, params.critic)
    assert value is not None
    last = jnp.take_along_axis(value, length[:, None] - 1, 1, mode="clip")
    return log_prob, value, last[:, 0]


def first_tokens(action: jax.Array) -> jax.Array:
    """bool [N, C]: the first token of each response; the environment's come between."""
    return action & ~jnp.pad(action[:, :-1], ((0, 0), (1, 0)))


def at_turns(value: jax.Array, turn: jax.Array, opens: jax.Array, num_turns: int) -> jax.Array:
    """[N, U]: the value before each response; 0 where no turn was played."""
    row = jnp.arange(len(turn), dtype=jnp.int32)[:, None]
    at = jnp.where(opens, turn, num_turns)
    return jnp.zeros((len(turn), num_turns), value.dtype).at[row, at].set(value, mode="drop")


def loss(params: learn.Params, batch: TurnBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """The clipped surrogate of each token with its entropy, and the critic's squared error."""
    assert isinstance(params.critic, learn.Critic)
    log_prob, entropy, value = learn.predict_responses(params.policy, batch, cfg, params.critic)
    old_log_prob, advantage = batch.log_prob, batch.advantage
    assert value is not None and old_log_prob is not None
    assert batch.opens is not None and batch.value_target is not None
    log_ratio = objectives.token_log_ratio(log_prob, old_log_prob, batch.mask)
    token_loss = losses.clipped_ratio(log_ratio, advantage, cfg.clip_low, cfg.clip_high)
    total, count = objectives.token_mean(token_loss - cfg.entropy_coef * entropy, batch.mask)
    error = losses.value_loss(value, batch.value_target)
    of_critic = objectives.token_mean(error, batch.opens)
    known = learn.ratio_metrics(batch, log_prob, old_log_prob, log_ratio, cfg)
    known |= learn.token_means(batch.mask, entropy=entropy) | {"value_loss": of_critic}
    return Sums(total + cfg.value_coef * of_critic.numerator, count), known


init, layout, update = learn.init, learn.layout, partial(learn.update, prepare, loss)
