"""Rewards in Python: what they see, what becomes of it, and of those that fail."""

import json
import os
from dataclasses import replace
from functools import partial

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.dataset.environment import DataSet
from jaxrl.algos import grpo
from jaxrl.lm.host.answers import Answers, Where
from jaxrl.lm.host.player import Host, with_rewards
from jaxrl.lm.host.pool import Reply
from jaxrl.lm.host.program import HostProgram
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.program import members
from train.host_language import rows_of

MODULE = """
import os, time

SIZE = 3

def first(completion_ids, **kwargs):
    return [(ids[0] if ids[0] < 256 else ord("<")) / 256 for ids in completion_ids]

def letters(prompts, completions, completion_ids, id, answer, trainer_state, log_metric):
    assert prompts == [f"{x}+{x}=" for x in id] and answer == [2 * x for x in id]
    assert trainer_state.global_step == 0 and len(completion_ids) == len(completions)
    log_metric("shortest", min(map(len, completion_ids)))
    return [sum(map(str.isalpha, text)) / 8 for text in completions]

async def steps(id, completions, **kwargs):
    return [float(i) if id[0] % 2 == 0 else None for i in range(len(completions))]

def counted(completions, **kwargs):
    with open(os.environ["COUNT"], "a") as file:
        file.write("x")
    return [float(len(text)) for text in completions]

def always(**kwargs):
    raise KeyError("nothing")

def few(completions, **kwargs):
    return [1.0]

def row():
    return int(os.environ["ROW"])

def raises(id, **kwargs):
    if id[0] == row():
        raise RuntimeError("no server for 3")
    return [0.0, 1.0]

def slow(id, **kwargs):
    time.sleep(60 if id[0] == row() else 0)
    return [0.0, 1.0]

def dies(id, **kwargs):
    if id[0] == row():
        os._exit(7)
    return [0.0, 1.0]

def odd(id, **kwargs):
    return [float("nan")] * 2 if id[0] == row() else [0.0, 1.0]

def none(id, **kwargs):
    return [None] * 2 if id[0] == row() else [0.0, 1.0]
"""


class Paid(DataSet):
    """A list of questions where a response is worth its first byte."""

    def step(self, state, action, key):
        state, ts = super().step(state, action, key)
        return state, ts.replace(reward=action.bytes[0] / jnp.float32(256))


SIZES = {"num_prompts": 4, "group_size": 2, "num_lanes": 4, "micro_batch": 2, "sft_episodes": 4}
CFG = grpo.Config(**SIZES, total_episodes=24, response_tokens=8, num_minibatches=2)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with a list of sums, and a module `mine_to_try` of rewards that workers find."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "mine_to_try.py").write_text(MODULE)
    rows = [{"question": f"{i}+{i}=", "answer": 2 * i, "id": i} for i in range(97)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("COUNT", str(folder / "count"))
        yield folder


@pytest.fixture(scope="module")
def mine(shelf):
    env = envs.make("dataset", data=str(shelf / "rows.jsonl"), split="all")
    env = Paid(**vars(env))
    sizes = limits(env, agents.CHAT, response=8)
    model = replace(agents.MODEL, context=sizes.context)
    return Agent(env, agents.CHAT, sizes, model, num_shown=2)


class NoWorld:
    """What a program asks of its host while it is compiled."""

    paid = staticmethod(partial(with_rewards, adds=False))


class Trial:
    """A program that is compiled once, with one host after the other."""

    def __init__(self, mine):
        self.mine, self.members = mine, members([4], CFG, mine.env)
        self.said = []
        init, _ = agents.functions(grpo, mine)
        self.program = HostProgram(init, grpo.update, CFG, replace(mine, host=NoWorld()), 1)
        self.init, run = self.program.compile(self.members)
        self.parts = run.args

    def host(self, *names, weights=(), deadline=60.0, path=None):
        write = Transcriber(agents.CHAT.tokenizer, CFG.group_size)
        names = [f"mine_to_try:{name}" for name in names]
        how = {"workers": 2, "deadline": deadline, "say": self.said.append}
        host = Host(
            self.mine.env,
            names,
            weights or [1.0] * len(names),
            rows_of(self.mine.env),
            write,
            **how,
        )
        if path is not None:
            host.answers.open(path)
        return host

    def run(self, host, count=1, state=None):
        """(state, means of each iteration)"""
        program = replace(self.program, agent=replace(self.mine, host=host))
        state = self.init(self.members) if state is None else state
        try:
            state, log = program.run(*self.parts, state, self.members, count)
        finally:
            host.close()
        return state, [agents.means(log, i) for i in range(count)]


@pytest.fixture(scope="module")
def trial(mine):
    return Trial(mine)


def test_rewards_in_python_train_as_those_of_the_environment_do(trial, mine):
    """The same tokens, log-probs and parameters, bit for bit."""
    program, of = agents.program(grpo, CFG, mine)
    of = of.replace(seed=trial.members.seed)
    init, run = program.compile(of)
    placed = program.place(of)
    state, log = run(init(placed), placed, program.scalar(2))
    ours, means = trial.run(trial.host("first"), 2)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(ours), strict=True):
        np.testing.assert_array_equal(a, b)
    for i, told in enumerate(means):
        wanted = agents.means(log, i)
        assert told.pop("masked_episodes") == 0
        assert told.pop("reward/first") == pytest.approx(wanted["episode_return"])
        assert told["grad_norm"] > 0 and told["uniform_groups"] < 1
        assert told == wanted


def of_row(trial, host, row):
    """(reward, masked) of the group that has this id, after one iteration."""
    judged = {}

    def judge(calls):
        found = rewards(calls)
        judged[calls[0].columns["id"][0]] = found
        return found

    rewards, host.rewards.judge = host.rewards.judge, judge
    _, (told,) = trial.run(host)
    return judged, told


def test_several_rewards_are_weighted_and_each_is_logged(trial):
    judged, told = of_row(trial, trial.host("letters", "steps", weights=(2.0, 0.5)), 3)
    assert len(judged) == 4
    for row, (reward, masked) in judged.items():
        assert not masked.any()
        letters = reward - 0.5 * np.arange(2) * (row % 2 == 0)  # steps does not apply to odd rows
        np.testing.assert_allclose(letters * 4, np.round(letters * 4), atol=1e-6)
    mean = np.mean([reward for reward, _ in judged.values()])
    assert told["episode_return"] == pytest.approx(mean, abs=1e-6)
    assert told["reward/steps"] == 0.5 and told["shortest"] >= 1
    assert mean == pytest.approx(2 * told["reward/letters"] + 0.25 * np.mean(
        [row % 2 == 0 for row in judged]), abs=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "RuntimeError: no server for 3"),
        ("slow", "gave no answer within 1 s"),
        ("dies", "its process ended (exit code 7)"),
        ("odd", "gave nan; such episodes are masked"),
        ("none", ""),
    ],
)
def test_a_call_that_gives_nothing_masks_its_episodes_and_no_others(trial, name, words):
    row = int(rows_played(trial)[1])
    os.environ["ROW"] = str(row)
    trial.said.clear()
    judged, told = of_row(trial, trial.host(name, deadline=1.0), row)
    for one, (reward, masked) in judged.items():
        assert masked.tolist() == [one == row] * 2, (one, masked)
        assert reward.tolist() == ([0, 0] if one == row else [0, 1])
    assert told["masked_episodes"] == 2 and told["episode_return"] == 0.5
    assert told["learned_share"] < 1
    assert [words in line for line in trial.said] == [True] * bool(words)


def rows_played(trial):
    """The rows of the first iteration's prompts."""
    judged, _ = of_row(trial, trial.host("counted"), 0)
    return list(judged)


def test_a_function_that_never_works_stops_the_run_and_one_of_another_length_too(trial):
    with pytest.raises(ValueError, match="reward=mine_to_try:always failed on every call: KeyErr"):
        trial.run(trial.host("always"))
    with pytest.raises(ValueError, match="try:few returned 1 rewards for 2 completions; give one"):
        trial.run(trial.host("few"))
    for name, words in (("nope", "has no 'nope'; it has first"), ("SIZE", "is a int, not a")):
        with pytest.raises(ValueError, match=words):
            trial.host(name)
    with pytest.raises(ValueError, match="'mine_gone' cannot be imported: ModuleNotFoundError"):
        how = {"workers": 1, "deadline": 1.0, "say": print}
        Host(trial.mine.env, ["mine_gone:f"], [1.0], rows_of(None), None, **how)


def test_what_was_answered_is_not_asked_again(trial, shelf):
    """A run that was broken off in the middle of its second iteration, and goes on."""
    count, path = shelf / "count", shelf / "answers.jsonl"
    count.unlink(missing_ok=True)
    whole, means = trial.run(trial.host("counted", path=path), 2)
    assert len(count.read_text()) == 8
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # the seventh was being written
    host = trial.host("counted", path=path)
    first, _ = trial.run(host, 1)
    assert len(count.read_text()) == 8
    host = trial.host("counted", path=path)
    host.answers.before(1)
    again, told = trial.run(host, 1, first)
    assert len(count.read_text()) == 10 and told == means[1:]
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(path.read_text().splitlines()) == 8


def test_answers_to_another_question_are_not_taken(tmp_path):
    answers, where = Answers(), Where(0, 1, 2, 3, "f")
    answers.open(tmp_path / "answers.jsonl")
    answers.keep([(where, {"a": 1}, Reply("ok", 0.1))])
    answers.open(tmp_path / "answers.jsonl")
    assert answers.get(where, {"a": 1}) == Reply("ok", 0.1)
    assert answers.get(where, {"a": 2}) is None
    (tmp_path / "answers.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 1"):
        Answers().open(tmp_path / "answers.jsonl")
