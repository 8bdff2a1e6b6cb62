"""Rewards in Python: what they see, what becomes of it, and of those that fail."""

import json
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.dataset.environment import DataSet
from jaxrl.algos import grpo
from jaxrl.lm.host.player import Host, with_rewards
from jaxrl.lm.host.answers import Answers
from jaxrl.lm.host.program import HostProgram
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.metrics import quotient
from jaxrl.program import members
from train.host_language import rows_of

MODULE = """
import os, time

def first(completion_ids, **kwargs):
    return [(ids[0] if ids[0] < 256 else ord("<")) / 256 for ids in completion_ids]

def letters(prompts, completions, completion_ids, id, trainer_state, log_metric):
    assert all(len(x) == len(prompts) for x in (completions, completion_ids, id))
    log_metric("shortest", min(map(len, completion_ids)))
    return [sum(map(str.isalpha, text)) / 8 for text in completions]

def sometimes(id, completions, **kwargs):
    if id[0] == 3:
        raise RuntimeError(f"no server for {id[0]}")
    return [None if id[0] == 5 else 2.0 * i for i in range(len(completions))]

def counted(completions, **kwargs):
    with open(os.environ["COUNT"], "a") as file:
        file.write("x")
    return [float(len(text)) for text in completions]

def always(**kwargs):
    raise KeyError("nothing")

def few(completions, **kwargs):
    return [1.0]

def slow(id, completions, **kwargs):
    if id[0] == 3:
        time.sleep(60)
    return [1.0 * i for i in range(len(completions))]

def dies(id, completions, **kwargs):
    if id[0] == 3:
        os._exit(7)
    return [1.0 * i for i in range(len(completions))]
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
    rows = [{"question": f"{i}+{i}=", "answer": 2 * i, "id": i} for i in range(8)]
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
        self.mine, self.members = mine, members([3], CFG, mine.env)
        self.said = []
        init, _ = agents.functions(grpo, mine)
        self.program = HostProgram(init, grpo.update, CFG, replace(mine, host=NoWorld()), 1)
        self.init, run = self.program.compile(self.members)
        self.parts = run.args

    def host(self, *names, weights=(), deadline=60.0, path=None):
        write = Transcriber(agents.CHAT.tokenizer, CFG.group_size)
        names = [f"mine_to_try:{name}" for name in names]
        how = {"workers": 2, "deadline": deadline, "say": self.said.append}
        host = Host(self.mine.env, names, weights or [1.0] * len(names), rows_of(self.mine.env), write, **how)
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


def test_several_rewards_are_weighted_and_each_is_logged(trial):
    _, (told,) = trial.run(trial.host("letters", "sometimes", weights=(2.0, 0.5)))
    # TODO
