"""PPO of a language agent against a reward model (arXiv:2203.02155): a critic of tokens, and a KL.

The reward model scores the conversation as a whole: that is the reward at its last token. At every
token beta times an estimate of KL(policy || model at the start) is taken away, and a token is the
step of generalized advantage estimation. The critic is a network of its own that begins as the
reward model, layers and head. Differences from the paper: the critic may learn alone at first; an
episode may have many turns, of which the policy's own tokens alone are steps; where a clock ends
it that is an end like any other, since the score is of what was said until then.
"""

from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxrl import advantages, config, losses, objectives, returns, sgd
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums, mean

ESTIMATES = {"k1": losses.kl_k1, "k2": losses.kl_k2, "k3": losses.kl_k3}
BOUND = 10.0  # of a token's log-ratio and of its KL, either way


@config.pytree_dataclass
class Config(learn.MinibatchConfig):
    num_minibatches: int = 2  # optimizer steps per pass
    gamma: float = 1.0  # discount per token
    gae_lambda: float = 0.95  # weight of longer returns, over tokens
    kl: Literal["k1", "k2", "k3"] = "k1"  # estimate of the KL in each token's reward
    kl_coef: float = 0.02  # its weight; scores have a standard deviation of 1 at the start
    value_clip: float = 0.5  # a value is kept so near to what it was when the episode was played
    learning_rate: float = 1e-4  # of the policy, at the start
    critic_learning_rate: float = 3e-4  # of the critic, at the start
    critic_alone: int = 0  # iterations at the start in which the policy stays as it is
    overlong: Literal["keep", "mask", "penalise"] = "penalise"  # responses the length limit cut

    own_critic: ClassVar[bool] = True
    keeps_reference: ClassVar[bool] = True

    def __post_init__(self):
        config.check_range("gamma", self.gamma, 0.0, 1.0, 1.0)
        config.check_range("gae_lambda", self.gae_lambda, 0.0, 1.0, 0.95)
        config.check_range("kl_coef", self.kl_coef, 0.0, 1e6, 0.02)
        config.check_range("critic_alone", self.critic_alone, 0, 2**30, 10)
        config.check_positive("value_clip", self.value_clip, 0.5)
        config.check_positive("critic_learning_rate", self.critic_learning_rate, 3e-4)
        super().__post_init__()

    @property
    def critic_rate(self) -> float:
        return self.critic_learning_rate

    def at_iteration(self, iteration: jax.Array) -> "Config":
        """Both rates fall alike.

        The policy's is 0 while the critic learns alone, and the critic's in the warm start.
        """
        now = super().at_iteration(iteration)
        rate = self.critic_learning_rate * now.learning_rate / self.learning_rate
        done = iteration - self.sft_steps
        alone = (done >= 0) & (done < self.critic_alone)
        return config.with_values(
            now,
            learning_rate=jnp.where(alone, 0.0, now.learning_rate),
            critic_learning_rate=jnp.where(done < 0, 0.0, rate),
        )


class ValueBatch(learn.TokenBatch, kw_only=True):
    """Tokens with what their values were, and should have been."""

    value: jax.Array | None = None  # float32 [N, C-1]: before the token, when it was played
    value_target: jax.Array | None = None  # float32 [N, C-1]


def prepare(
    params: learn.Params,
    reference: learn.Params,
    episodes: learn.Episodes,
    cfg: Config,
    axis: str | None,
) -> tuple[ValueBatch, Metrics]:
    """What is learned from, how far the policy is from its reference, and what the critic knew."""
    rows, turn = learn.learned_from(episodes, cfg)

    def log_prob_of(params: learn.Params, rows: learn.Sequences) -> jax.Array:
        return learn.predict_responses(params.policy, rows, cfg).log_prob

    log_prob = sgd.map_pieces(log_prob_of, params, rows, cfg.micro_batch)
    ref_log_prob = sgd.map_pieces(log_prob_of, reference, rows, cfg.micro_batch)
    value = sgd.map_pieces(partial(value_of, cfg=cfg), params, rows, cfg.micro_batch)
    kl = bounded_kl(log_prob, ref_log_prob, cfg)
    paid, mask = learn.learned_reward(episodes, cfg), rows.mask
    reward = advantages.token_reward(paid, kl, turn, mask, cfg.kl_coef)
    advantage = advantages.token_gae(reward, value, mask, cfg.gamma, cfg.gae_lambda)
    target = jnp.where(mask, advantage + value, 0.0)
    batch = ValueBatch(
        **vars(rows),
        sampled_log_prob=episodes.log_prob[:, 1:],
        advantage=advantages.whiten(advantage, mask, axis),
        log_prob=log_prob,
        value=value,
        value_target=target,
    )
    of_episode = jnp.sum(jnp.where(mask, log_prob - ref_log_prob, 0.0), 1)
    return batch, {
        "episode_kl": mean(of_episode, jnp.any(mask, 1)),
        "kl_to_reference": mean(losses.kl_k3(log_prob, ref_log_prob), mask),
        "explained_variance": returns.explained_variance(value, target, mask, axis),
    }


def value_of(params: learn.Params, rows: learn.Sequences, cfg: Config) -> jax.Array:
    """float32 [N, C-1]: the critic's, before each token."""
    assert isinstance(params.critic, learn.Params)
    return learn.values(params.critic, rows, cfg.prompt_shared_by, cfg.remat)


def bounded_kl(log_prob: jax.Array, ref_log_prob: jax.Array, cfg: Config) -> jax.Array:
    """The estimate at each token, so that no single one outweighs a score."""
    log_ratio = jnp.clip(log_prob - ref_log_prob, -BOUND, BOUND)
    return jnp.clip(ESTIMATES[cfg.kl](log_ratio, jnp.zeros_like(log_ratio)), -BOUND, BOUND)


def loss(params: learn.Params, batch: ValueBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """At each token the clipped surrogate, the entropy and the larger of two value losses."""
    predicted = learn.predict_responses(params.policy, batch, cfg)
    value, mask = value_of(params, batch, cfg), batch.mask
    assert batch.log_prob is not None
    assert batch.value is not None and batch.value_target is not None
    log_ratio = objectives.token_log_ratio(predicted.log_prob, batch.log_prob, mask)
    surrogate = losses.clipped_ratio(log_ratio, batch.advantage, cfg.clip_low, cfg.clip_high)
    error = losses.clipped_value_loss(value, batch.value, batch.value_target, cfg.value_clip)
    each = surrogate - cfg.entropy_coef * predicted.entropy + error
    known = learn.ratio_metrics(batch, predicted.log_prob, batch.log_prob, log_ratio, cfg)
    known |= learn.token_means(mask, entropy=predicted.entropy, value_loss=error)
    return objectives.token_mean(each, mask), known


init, layout, update = learn.init, learn.layout, partial(learn.update, prepare, loss)
