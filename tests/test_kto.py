"""KTO of a language agent: its baseline, its loss on a batch, labelled responses of a file."""

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import agents
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl.algos import kto
from jaxrl.lm import folders, learn
from jaxrl.metrics import quotient
from train import pair_data

SMALL: dict[str, Any] = {name: x for name, x in agents.SMALL.items() if name != "sft_episodes"}
EPISODES: dict[str, Any] = {"total_episodes": 4 * 60}
GOOD = {"prompt": "say", "completion": "a", "label": True}


def read(path, *entries):
    path.write_text("\n".join(json.dumps(x) for x in entries))
    return pair_data.read_judged(path, folders.chat_tokenizer(None))


def test_each_prompt_is_followed_by_its_neighbours_response():
    rows = learn.Sequences(
        token=jnp.asarray([[1, 2, 11, 12, 0, 0], [3, 4, 5, 21, 22, 23]]),
        mask=jnp.asarray([[0, 1, 1, 0, 0], [0, 0, 1, 0, 1]], bool),
        start=jnp.asarray([2, 3]),
        first=3,
    )
    mixed = kto.with_neighbours(rows)
    assert mixed.token.tolist() == [[1, 2, 21, 22, 23, 0], [3, 4, 5, 11, 12, 0]]
    assert mixed.mask.tolist() == [
        [False, True, False, True, False],
        [False, False, True, True, False],
    ]


def test_a_batchs_loss_is_that_of_numpy_with_the_baseline_of_mismatched_responses():
    reward = np.array([[1, 0], [0, 0], [0, 0.25], [0, 0.5]], np.float32)
    masked = jnp.asarray([False, False, False, True])
    record = agents.episodes(reward, masked=masked)
    params, other = agents.params(), agents.params(seed=1)
    cfg = kto.Config(**SMALL, beta=0.3, good_weight=2.0)
    batch, known = jit(partial(kto.prepare, cfg=cfg, axis=None))(params, other, record)
    sums, metrics = jit(partial(kto.loss, cfg=cfg))(params, batch)
    assert batch.good.tolist() == [True, False, False, True]
    assert quotient(known["good_share"]) == pytest.approx(1 / 3)

    @jit
    def whole(params, token, mask):
        return jnp.sum(learn.predict(params.policy, token, mask, cfg).log_prob, 1)

    def ratio(rows):
        return np.asarray(whole(params, *rows) - whole(other, *rows))

    own = ratio((record.token, batch.mask))
    mixed = kto.with_neighbours(batch)
    others = ratio((mixed.token, mixed.mask))
    baseline = max(0.0, others[[0, 1, 3]].mean())  # a masked one has no response to lend
    swapped = (
        record.token.reshape(2, 2, -1)[:, ::-1].reshape(4, -1).at[:, :2].set(record.token[:, :2])
    )
    np.testing.assert_array_equal(mixed.token[:, :12], swapped[:, :12])
    np.testing.assert_allclose(batch.baseline, baseline, rtol=1e-4, atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-0.3 * (own - baseline)))
    expected = 2 * (1 - sigmoid[0]) + sigmoid[1] + sigmoid[2]
    np.testing.assert_allclose(sums.numerator, expected, rtol=1e-4)
    assert sums.denominator == 3
    assert quotient(metrics["good_reward"]) == pytest.approx(0.3 * own[0], rel=1e-4)
    assert quotient(metrics["bad_reward"]) == pytest.approx(0.3 * own[1:3].mean(), rel=1e-4)


def test_responses_of_a_file_are_learned_and_the_first_loss_is_a_half(tmp_path):
    bad = {"prompt": "say", "completion": "bb", "label": False}
    given = read(tmp_path / "judged.jsonl", GOOD, bad)
    assert given.reward.tolist() == [[1], [0]]
    mine = agents.agent(examples=given)
    mine = replace(mine, model_config=replace(mine.model_config, context=given.token.shape[1]))
    cfg = kto.Config(**SMALL | EPISODES, learning_rate=0.02, beta=0.5)
    program, members = agents.program(kto, cfg, mine, max_count=60)
    _, log = program.run(program.init(program.place(members)), members, 60)
    first, last = agents.means(log, 0), agents.means(log, 59)
    assert first["loss"] == pytest.approx(0.5, abs=1e-4) and abs(first["baseline"]) < 1e-4
    late = [agents.means(log, i) for i in range(50, 60)]
    good, bad = (np.mean([x[name] for x in late if name in x]) for name in NAMES)
    assert good > bad + 1 and last["loss"] < 0.45, late


NAMES = ("good_reward", "bad_reward")
BROKEN = [
    ({"prompt": "a", "completion": "x"}, 'an object with "prompt", "completion" and "label"'),
    ({"completion": "x", "label": True}, 'an object with "prompt", "completion" and "label"'),
    (GOOD | {"label": 1}, "label=1 must be true or false."),
    (GOOD | {"completion": ""}, "completion='' is neither a text nor messages."),
    (
        GOOD | {"completion": [{"role": "user", "content": "x"}]},
        "completion must be an assistant's",
    ),
    (GOOD | {"prompt": None}, "prompt=None is neither a text nor"),
    (GOOD | {"tools": [1]}, "the object has 'tools'"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=[x for _, x in BROKEN])
def test_a_broken_line_of_labels_is_named(broken, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read(tmp_path / "judged.jsonl", GOOD, broken)
    assert f"judged.jsonl, line 2: {words}" in str(error.value)


def test_neighbours_are_in_the_same_piece():
    with pytest.raises(ValueError, match="micro_batch=1 is odd, and neighbours lie side by side"):
        kto.Config(micro_batch=1)
