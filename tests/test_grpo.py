"""Which episodes GRPO learns from, and how much."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algos import grpo
from jaxrl.lm.learn.batch import Prediction, TokenBatch
from jaxrl.lm.model.params import Params
from jaxrl.lm.play.episodes import Episodes, empty

RETURNS = (0.0, 0.25, 1.0, 0.5, 0.5, 0.5)  # two groups of three; the second has nothing to tell


def config(**options: Any) -> grpo.Config:
    return grpo.Config(num_prompts=2, group_size=3, micro_batch=1, **options)


def episodes() -> Episodes:
    """Six of one turn, told apart by their first token; the tokens 1 and 2 are the policy's."""
    played = empty(6, context=4, max_turns=1, metrics=[], first=1)
    return played.replace(
        token=played.token.at[:, 0].set(jnp.arange(6)),
        action=played.action.at[:, 1:3].set(True),
        length=jnp.full(6, 3),
        reward=jnp.asarray(RETURNS)[:, None],
        played=jnp.ones((6, 1), bool),
    )


def prepared(**options: Any) -> TokenBatch:
    model: Any = None  # one step an iteration needs no log-prob of the learner
    return grpo.prepare(model, None, episodes(), config(**options), None)[0]


def test_all_of_a_group_are_learned_from_by_their_advantage():
    rows = prepared(divide_by_std=False)
    assert rows.token[:, 0].tolist() == list(range(6)) and rows.mask[:, :2].all()
    centred = np.subtract(RETURNS[:3], np.mean(RETURNS[:3]))
    np.testing.assert_allclose(rows.advantage[:3, 0], centred, atol=1e-6)
    assert not rows.advantage[3:].any()


def test_a_group_that_failed_as_a_whole_learns_from_an_episode_that_is_supposed():
    advantage = prepared(divide_by_std=False, supposed=1.0).advantage[:, 0]
    for got, group in ((advantage[:3], RETURNS[:3]), (advantage[3:], RETURNS[3:])):
        np.testing.assert_allclose(got, np.subtract(group, np.mean([*group, 1.0])), atol=1e-6)
    # Of three times 0.5 and once 1 the mean is 1/8 above, the std root 3 times that.
    divided = prepared(supposed=1.0).advantage[3:, 0]
    np.testing.assert_allclose(divided, -1 / np.sqrt(3), rtol=1e-4)
    assert not prepared(supposed=0.5).advantage[3:].any(), "nobody is below the supposed one"


def test_the_best_of_a_group_alone_are_imitated_and_of_a_uniform_one_nobody():
    rows = prepared(best=1, divide_by_std=False)
    assert rows.token[:, 0].tolist() == [2, 3]
    np.testing.assert_allclose(rows.advantage[0], [7 / 12, 7 / 12, 0], rtol=1e-6)
    assert rows.mask.tolist() == [[True, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"best": 3}, "best=3 must be 0 to group_size - 1"),
        ({"best": -1}, "best=-1 must be 0 to group_size - 1"),
        ({"best": 1, "kl": "k1"}, "kl='k1' changes rewards"),
        ({"best": 1, "micro_batch": 4}, "micro_batch=4 does not divide"),
        ({"best": 1, "surrogate": "gspo"}, "surrogate=gspo is not used"),
        ({"best": 1, "supposed": 1.0}, "supposed=1.0 is not used"),
    ],
)
def test_bests_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        grpo.Config(**{"num_prompts": 2, "group_size": 3, "micro_batch": 1} | options)


def test_devices_share_what_is_learned_from_not_what_is_played():
    sizes: dict[str, Any] = {"num_prompts": 16, "group_size": 8, "num_lanes": 128, "micro_batch": 4}
    assert grpo.Config(**sizes).num_blocks == 16  # 128 episodes, by 4
    assert grpo.Config(**sizes, best=1).num_blocks == 4  # of 16 episodes, by 4
    assert grpo.Config(**sizes, best=1, num_minibatches=2).num_blocks == 2
    assert grpo.Config(**sizes | {"sft_episodes": 24}, sft_coef=0.1).num_blocks == 2


def test_what_is_imitated_is_not_clipped(monkeypatch):
    """However much likelier it has become since it was said."""
    rows = prepared(best=1, divide_by_std=False).replace(log_prob=jnp.full((2, 3), -5.0))
    now = jnp.full((2, 3), -1.0)
    said = Prediction(now, jnp.zeros_like(now))
    monkeypatch.setattr(grpo.learn, "predict_responses", lambda *_: said)
    params: Any = Params(None)  # pyright: ignore
    for best, expected in ((1, 2 * 7 / 12), (0, -2 * 7 / 12 * 1.28)):
        cfg = config(best=best, num_epochs=2)
        value, _ = grpo.loss(params, rows, cfg)
        assert value.denominator == 2
        np.testing.assert_allclose(value.numerator, expected, rtol=1e-5)
