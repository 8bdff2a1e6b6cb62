"""A reward model of a language agent's responses: Bradley-Terry on pairs (arXiv:2203.02155).

A transformer with a linear head on the hidden state after the last token: a number for the whole
conversation. Of given pairs, or of pairs that the model at the start plays, by a noisy oracle if
wanted. The head is 0 at first, and so is its bias, on which no difference depends.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxrl import config, preferences
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums, mean


@config.pytree_dataclass
class Config(learn.PairConfig):
    center: float = 0.0  # weight of the squared sum of both rewards, which keeps them around 0
    learning_rate: float = 1e-4  # at the start

    has_critic: ClassVar[bool] = True
    keeps_reference: ClassVar[bool] = True
    reference_plays: ClassVar[bool] = True

    def __post_init__(self):
        config.check_range("center", self.center, 0.0, 1e6, 0.01)
        super().__post_init__()


class JudgedPairs(learn.PairBatch, kw_only=True):
    """Pairs with where they end."""

    length: jax.Array  # int32 [2P]


def prepare(
    oracle_key: jax.Array | None,
    params: learn.Params,
    reference: learn.Params | None,
    episodes: learn.Episodes,
    cfg: Config,
    axis: str | None,
) -> tuple[JudgedPairs, Metrics]:
    """Which response of each pair is chosen."""
    del params, reference
    rows, _ = learn.learned_from(episodes, cfg)
    sign, margin = learn.judge(episodes, oracle_key, cfg, axis)
    batch = JudgedPairs(**vars(rows), sign=sign, margin=margin, length=episodes.length)
    return batch, {"tied_pairs": mean(sign[::2] == 0)}


def reward_of(
    params: learn.Params, rows: learn.Sequences, length: jax.Array, cfg: Config
) -> jax.Array:
    """float32 [N]: the head after the last token of sequences of these lengths [N]."""
    wider = rows.replace(  # or nothing would be read after the last token of the longest
        token=jnp.pad(rows.token, ((0, 0), (0, 1))), mask=jnp.pad(rows.mask, ((0, 0), (0, 1)))
    )
    value = learn.predict_responses(params.policy, wider, cfg, params.critic).value
    assert value is not None
    return jnp.take_along_axis(value, length[:, None] - 1, 1)[:, 0]


def loss(params: learn.Params, batch: JudgedPairs, cfg: Config) -> tuple[Sums, Metrics]:
    """The mean over pairs of which one is preferred."""
    reward = reward_of(params, batch, batch.length, cfg)
    chosen, rejected = learn.in_order(reward, batch.sign)
    told = batch.sign[::2] != 0
    each = preferences.bradley_terry(chosen, rejected, batch.margin[::2])
    each = each + cfg.center * jnp.square(chosen + rejected)
    return mean(each, told), {
        "accuracy": mean(chosen > rejected, told),
        "reward_margin": mean(chosen - rejected, told),
        "chosen_reward": mean(chosen, told),
        "rejected_reward": mean(rejected, told),
    }


init, layout = learn.init, learn.layout
update = partial(learn.update_from_pairs, prepare, loss)
