"""DPO of a language agent: which response is chosen, its loss on a batch, and pairs from a file."""

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl.algos import dpo, grpo
from jaxrl.lm import folders, learn
from jaxrl.metrics import quotient
from train import dpo as train_dpo
from train import language, pair_data

SMALL: dict[str, Any] = {name: x for name, x in agents.SMALL.items() if name != "sft_episodes"}
REWARD = np.array([[1, 0], [0, 0], [0, 0], [0, 0], [0, 1], [2, 1]], np.float32)


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def write(path, *entries):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in entries))
    return path


def test_the_higher_return_of_two_is_chosen_and_equal_ones_are_no_pair():
    sign = learn.preferred(jnp.asarray(REWARD.sum(1)), None, None, None)
    assert sign.tolist() == [1, -1, 0, 0, -1, 1]
    chosen, rejected = learn.in_order(jnp.arange(6.0), sign)
    assert chosen.tolist() == [0, 0, 5] and rejected.tolist() == [1, 0, 4]


def test_a_noisy_oracle_prefers_the_higher_return_as_often_as_bradley_and_terry_say():
    score = jnp.tile(jnp.asarray([0.0, 1.0, 3.0, 3.0]), 2000)
    sign = learn.preferred(score, jax.random.key(0), 2.0, None).reshape(-1, 2, 2)
    assert not np.any(sign.sum(2)) and not np.any(sign[:, 1]), "equal ones are not told apart"
    assert abs(np.mean(sign[:, 0, 1] > 0) - 1 / (1 + np.exp(-2.0))) < 0.02


@pytest.fixture(scope="module")
def judged():
    """name of the loss -> (batch, policy, reference, loss, metrics) of pairs in either order."""
    params, other = agents.params(), agents.params(seed=1)
    record, found = agents.episodes(REWARD), {}
    token = record.token.at[1::2, : record.first].set(record.token[::2, : record.first])
    record = record.replace(token=token)  # a pair has one prompt
    for name in ("dpo", "ipo", "hinge", "simpo", "robust"):
        flipped = 0.2 if name == "robust" else 0.0
        cfg = dpo.Config(**SMALL, loss=name, beta=0.3, flipped=flipped)
        margin = jnp.repeat(jnp.asarray([0.5, 0.0, -0.25]), 2)
        given = record.replace(metrics={learn.MARGIN: margin})
        reference = None if name == "simpo" else other
        how = {"cfg": cfg, "axis": None, "finish": dpo.with_reference}
        batch, known = jit(partial(learn.pairs_of, None, **how))(params, reference, given)
        sums, metrics = jit(partial(dpo.loss, cfg=cfg))(params, batch)
        found[name] = batch, sums, metrics | known
    log_prob = jit(
        lambda p: learn.predict(p.policy, record.token, record.action[:, 1:], cfg).log_prob
    )
    mask = np.asarray(record.action[:, 1:])
    return found, *(np.where(mask, np.asarray(log_prob(p)), 0) for p in (params, other)), mask


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge", "simpo", "robust"])
def test_a_batchs_loss_is_that_of_whole_responses_in_numpy_and_ties_do_not_count(name, judged):
    found, ours, refs, mask = judged
    ours, refs = ours.sum(1), refs.sum(1)
    if name == "simpo":
        ours, refs = ours / mask.sum(1), 0 * refs
    chosen, rejected, margin = np.array([0, 5]), np.array([1, 4]), np.array([0.5, -0.25])
    reward = 0.3 * (ours - refs)
    ahead = reward[chosen] - reward[rejected] - margin

    def soft(x):
        return np.log1p(np.exp(x))

    expected = {
        "dpo": soft(-ahead),
        "ipo": (ahead / 0.3 - 1 / 0.6) ** 2,
        "hinge": np.maximum(0, 1 - ahead),
        "simpo": soft(0.5 - ahead),
        "robust": (0.8 * soft(-ahead) - 0.2 * soft(ahead)) / 0.6,
    }[name]
    _, sums, metrics = found[name]
    np.testing.assert_allclose(sums.numerator, expected.sum(), rtol=1e-4)
    assert sums.denominator == 2
    told = {name: float(quotient(x)) for name, x in metrics.items()}
    assert told["tied_pairs"] == pytest.approx(1 / 3)
    assert told["accuracy"] == np.mean(reward[chosen] > reward[rejected])
    for key, value in (
        ("chosen_reward", reward[chosen]),
        ("rejected_reward", reward[rejected]),
        ("implied_margin", reward[chosen] - reward[rejected]),
        ("chosen_log_prob", ours[chosen]),
        ("rejected_log_prob", ours[rejected]),
    ):
        assert told[key] == pytest.approx(value.mean(), rel=1e-4, abs=1e-5)


def test_what_the_host_could_not_judge_is_no_pair():
    cfg = dpo.Config(**SMALL, loss="simpo")
    masked = jnp.asarray([True, False, False, False, False, False])
    record = agents.episodes(REWARD, masked=masked)
    batch, _ = learn.pairs_of(None, None, None, record, cfg, None)
    assert batch.sign.tolist() == [0, 0, 0, 0, -1, 1]


def examples(tmp_path):
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "say", "chosen": "a", "rejected": "bb"},
        {"prompt": "speak", "chosen": "c", "rejected": "b"},
    )
    return pair_data.read(path, folders.chat_tokenizer(None))


def test_pairs_of_a_file_are_learned_and_the_first_loss_is_log_2(tmp_path):
    """By adapters alone, which add nothing at first, beside tables of tokens that stay small."""
    given = examples(tmp_path)
    mine = agents.agent(examples=given, lora_rank=2)
    mine = replace(mine, model_config=replace(mine.model_config, context=given.token.shape[1]))
    sizes: dict[str, Any] = {"total_episodes": 8 * 40}
    cfg = dpo.Config(**SMALL | sizes, learning_rate=0.02, beta=0.5)
    program, members = agents.program(dpo, cfg, mine, max_count=40)
    start = program.init(program.place(members))
    state, log = program.run(start, members, 40)
    first, last = agents.means(log, 0), agents.means(log, 39)
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert abs(first["implied_margin"]) < 1e-4 and first["tied_pairs"] == 0
    assert last["accuracy"] == 1 and last["loss"] < 0.6
    assert last["chosen_reward"] > last["rejected_reward"] + 0.2
    assert state.iteration.tolist() == [40] and "episode_return" not in first


def test_who_imitates_a_file_before_play_still_plays():
    given = agents.episodes(REWARD)
    mine = agents.agent(examples=given.replace(metrics={}, first=0))
    cfg = grpo.Config(**agents.SMALL, group_size=2, sft_steps=1)
    state = jax.eval_shape(partial(grpo.init, cfg=cfg, agent=mine), jax.random.key(0))
    _, told = jax.eval_shape(partial(grpo.update, cfg=cfg, agent=mine), state, jax.random.key(1))
    assert {"episode_return", "success", "lane_occupancy"} <= told.keys()


def test_an_agent_that_learns_from_pairs_of_its_own_play_says_what_pays():
    sizes: dict[str, Any] = {"num_prompts": 32, "total_episodes": 64 * 60, "num_lanes": 64}
    cfg = dpo.Config(**SMALL | sizes, learning_rate=0.03, oracle=3.0)
    mine = agents.agent(agents.Parrot(turns=1))
    program, members = agents.program(dpo, cfg, mine, max_count=60)
    _, log = program.run(program.init(program.place(members)), members, 60)
    share = [agents.means(log, i).get("success", 0) for i in range(60)]
    assert np.mean(share[:5]) < 0.1 and np.mean(share[-5:]) > 0.5, share


def test_a_pair_has_one_prompt_and_its_responses_alone_are_learned(tmp_path):
    talk = [user("Hi"), said("Ho"), user("x")]
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": talk, "chosen": [said("q")], "rejected": [said("r"), user("s"), said("t")]},
        {"chosen": [*talk, said("yes")], "rejected": [*talk, said("no")], "margin": 2},
        {"prompt": "x", "chosen": [user("x"), said("1")], "rejected": [user("x"), said("2")]},
        {"chosen": "It is good", "rejected": "It is gone"},
    )
    record = pair_data.read(path, folders.chat_tokenizer(None))

    def texts(kept):
        return [
            bytes(t[(t < 256) & k].astype(np.uint8)).decode()
            for t, k in zip(np.asarray(record.token), kept, strict=True)
        ]

    inside = np.arange(record.token.shape[1]) < np.asarray(record.length)[:, None]
    assert texts(np.asarray(record.action)) == ["q", "rt", "yes", "no", "1", "2", "good", "gone"]
    whole = texts(inside)
    assert whole[0] == "HiHoxq" and whole[1] == "HiHoxrst" and whole[7] == "It is gone"
    start = np.asarray(record.start)
    np.testing.assert_array_equal(start[::2], start[1::2])
    assert record.first == start.max() and record.episode_return.tolist() == [1, 0] * 4
    assert record.metrics[learn.MARGIN].tolist() == [0, 0, 2, 2, 0, 0, 0, 0]
    assert (start + record.token.shape[1] - record.first >= record.length).all()


BROKEN = [
    ("{", "it is not JSON"),
    ({"prompt": "a", "chosen": "x", "rejected": "x"}, "chosen and rejected are the same, 'x'"),
    ({"chosen": "x", "rejected": "y"}, "chosen and rejected have no common prompt"),
    ({"chosen": "xa b", "rejected": "xc d"}, "chosen and rejected have no common prompt"),
    ({"chosen": [said("x")], "rejected": [said("y")]}, "no common prompt"),
    ({"chosen": [user("x"), said("a")], "rejected": [user("y"), said("a")]}, "no common prompt"),
    ({"chosen": "x"}, "both texts or both messages"),
    ({"prompt": "a", "chosen": "x", "rejected": [said("y")]}, "both texts or both messages"),
    ({"prompt": "a", "chosen": "x", "rejected": ""}, "both texts or both messages"),
    ([1], "both texts or both messages"),
    ({"prompt": 5, "chosen": "x", "rejected": "y"}, "prompt=5 is neither a text nor"),
    ({"prompt": "", "chosen": "x", "rejected": "y"}, "prompt='' is neither a text nor"),
    ({"prompt": [], "chosen": "x", "rejected": "y"}, "prompt is empty"),
    ({"prompt": [said("a")], "chosen": "x", "rejected": "y"}, "last message is 'assistant'"),
    ({"prompt": "a", "chosen": [5], "rejected": [said("y")]}, "message 0 of chosen needs"),
    ({"prompt": "a", "chosen": [user("b"), said("x")], "rejected": [said("y")]},
     "chosen must be an assistant's answer to the prompt"),
    ({"prompt": "a", "chosen": [said("x"), said("x")], "rejected": [said("y")]},
     "message 2 is 'assistant', not 'user'"),
    ({"prompt": "a", "chosen": "x", "rejected": "y", "margin": "1"}, "margin='1' must be a finite"),
    ('{"prompt": "a", "chosen": "x", "rejected": "y", "margin": 1e999}', "it holds the number"),
    ({"prompt": "a", "chosen": "x", "rejected": "y", "tools": [1]}, "the object has 'tools'"),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), BROKEN, ids=[str(x)[:60] for x, _ in BROKEN])
def test_a_broken_line_of_pairs_is_named_and_nothing_is_read(broken, words, tmp_path):
    good = {"prompt": "a", "chosen": "x", "rejected": "y"}
    path = write(tmp_path / "pairs.jsonl", good, broken, good)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        pair_data.read(path, folders.chat_tokenizer(None))
    assert str(error.value).startswith(f"data={path}, line 2: ")
    assert len(str(error.value).splitlines()) == 1


def test_pairs_that_do_not_fit_and_files_without_any_are_refused_with_their_sizes(tmp_path):
    long = {"prompt": "a", "chosen": "x" * 90, "rejected": "y"}
    path = write(tmp_path / "pairs.jsonl", long)
    args = train_dpo.Args(data=path, env_args=("turns=1",), algo=dpo.Config(context=60))
    words = f"context=60 is too short for {path}, whose longest conversation has 94 tokens; try"
    with pytest.raises(ValueError, match=re.escape(words)):
        train_dpo.TRAINER.setup(args)
    words = f"the model's context of 93 tokens is too short for {path}, whose longest conversation"
    with pytest.raises(ValueError, match=re.escape(words)):
        language.check_longest(path, 94, dpo.Config(), 93)
    path.write_text("\n  \n")
    with pytest.raises(ValueError, match="holds no conversations; each line is one JSON object"):
        train_dpo.TRAINER.setup(args)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"micro_batch": 3}, "micro_batch=3 is odd, and pairs lie side by side; try 4."),
        ({"loss": "ppo"}, "loss='ppo' is none of dpo, ipo, hinge, simpo, robust"),
        ({"loss": "ipo", "flipped": 0.1}, "flipped=0.1 is not used with loss=ipo"),
        ({"flipped": 0.5}, "flipped=0.5 must lie in"),
        ({"beta": 0.0}, "beta=0.0 must be a finite number above 0"),
        ({"oracle": -1.0}, "oracle=-1.0 must be a finite number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        dpo.Config(**options)


def test_scripted_play_is_not_imitated_beside_a_file_of_pairs(tmp_path):
    path = write(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "x", "rejected": "y"})
    args = train_dpo.Args(data=path, algo=dpo.Config(sft_steps=2))
    with pytest.raises(ValueError, match="sft_steps=2 imitates scripted play, and data="):
        train_dpo.TRAINER.setup(args)
