"""Direct preference optimisation of a language agent (arXiv:2305.18290), and losses of its kind.

Of given pairs, or of pairs that the agent plays itself: two responses to one prompt, of which the
one with the higher return is chosen, by a noisy oracle if wanted. The reference is the model at the
start, after a warm start if there is one. Differences from the paper: played pairs are new in each
iteration and the policy's own; a pair's own margin is asked for on top (arXiv:2402.10571); an
episode may have many turns, of which the policy's tokens alone count.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import config, objectives, preferences, sgd
from jaxrl.lm import learn
from jaxrl.metrics import Metrics, Sums, mean


@config.pytree_dataclass
class Config(learn.PairConfig):
    loss: Literal["dpo", "ipo", "hinge", "simpo", "robust"] = "dpo"  # simpo needs no reference
    beta: float = 0.1  # how near to the reference; of simpo rather 2
    flipped: float = 0.0  # share of labels that are wrong, of dpo (conservative) and robust
    gamma: float = 0.5  # how far simpo's chosen one should be ahead

    def __post_init__(self):
        config.check_positive("beta", self.beta, 0.1)
        config.check_range("flipped", self.flipped, 0.0, 0.49, 0.1)
        config.check_range("gamma", self.gamma, 0.0, 1e6, 0.5)
        used = self.loss in ("dpo", "robust")
        if config.is_known(self.flipped) and np.any(self.flipped) and not used:
            raise ValueError(
                f"flipped={self.flipped} is not used with loss={self.loss}; leave it out."
            )
        super().__post_init__()

    @property
    def keeps_reference(self) -> bool:
        return self.loss != "simpo"


def with_reference(
    reference: learn.Params | None, batch: learn.PairBatch, cfg: Config
) -> learn.PairBatch:
    """How likely both responses of each pair were to the reference, if there is one."""
    if reference is None:
        return batch

    def piece(params, rows):
        return log_prob_of(params, rows, cfg)[0]

    return batch.replace(ref_log_prob=sgd.map_pieces(piece, reference, batch, cfg.micro_batch))


def log_prob_of(
    params: learn.Params, rows: learn.Sequences, cfg: Config
) -> tuple[jax.Array, learn.Prediction]:
    """(log-prob [2P] of each response, with simpo of its tokens on average; those of the tokens)"""
    predicted = learn.predict_responses(params.policy, rows, cfg)
    whole = learn.response_mean if cfg.loss == "simpo" else objectives.sequence_log_prob
    return whole(predicted.log_prob, rows.mask), predicted


def loss(params: learn.Params, batch: learn.PairBatch, cfg: Config) -> tuple[Sums, Metrics]:
    """The mean over pairs of which one is preferred, and what the policy implies of them."""
    log_prob, predicted = log_prob_of(params, batch, cfg)
    chosen, rejected = learn.in_order(log_prob, batch.sign)
    ref = jnp.zeros_like(log_prob) if batch.ref_log_prob is None else batch.ref_log_prob
    ref_chosen, ref_rejected = learn.in_order(ref, batch.sign)
    margin = preferences.implied_margin(chosen, rejected, ref_chosen, ref_rejected)
    asked, told = batch.margin[::2], batch.sign[::2] != 0
    further = margin - asked / cfg.beta
    each = {
        "dpo": lambda: preferences.dpo(further, cfg.beta, cfg.flipped),
        "robust": lambda: preferences.robust(further, cfg.beta, cfg.flipped),
        "ipo": lambda: preferences.ipo(further, cfg.beta),
        "hinge": lambda: preferences.hinge(further, cfg.beta),
        "simpo": lambda: preferences.simpo(chosen, rejected, cfg.beta, cfg.gamma + asked),
    }[cfg.loss]()
    entropy = learn.response_mean(predicted.entropy, batch.mask)
    each = each - cfg.entropy_coef * jnp.mean(entropy.reshape(-1, 2), 1)
    known = {
        "accuracy": mean(margin > 0, told),
        "implied_margin": mean(cfg.beta * margin, told),
        "chosen_reward": mean(cfg.beta * (chosen - ref_chosen), told),
        "rejected_reward": mean(cfg.beta * (rejected - ref_rejected), told),
        "chosen_log_prob": mean(chosen, told),
        "rejected_log_prob": mean(rejected, told),
    }
    return mean(each, told), known | learn.token_means(batch.mask, entropy=predicted.entropy)


init, layout = learn.init, learn.layout
update = partial(learn.update_from_pairs, loss, finish=with_reference)
