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

    has_critic: ClassVar[bool] = True
    keeps_reference: ClassVar[bool] = True
    reference_plays: ClassVar[bool] = True

    def __post_init__(self):
        config.check_range("center", self.center, 0.0, 1e6, 0.01)
        super().__post_init__()


def reward_of(params: learn.Params, rows: learn.PairBatch, cfg: Config) -> jax.Array:
    """float32 [2P]: the head after the last token.

    Nothing is to be said, so there are no logits; both responses of a pair share its prompt.
    """
    share = cfg.prompt_shared_by
    return learn.score_of(params, rows, rows.length, share, cfg.remat)


def loss(params: learn.Params, batch: learn.PairBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """The mean over pairs of which one is preferred, by how much it is to be ahead.

    Pairs of equal returns tell nothing, nor do those that the host could not judge.
    """
    reward = reward_of(params, batch, cfg)
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


init, layout, update = learn.init, learn.layout, partial(learn.update_from_pairs, loss)
