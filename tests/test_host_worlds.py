"""Worlds and tools in Python: the same episodes as inside the program, and what may fail."""

import itertools
import json
from dataclasses import replace

import agents
import jax
import numpy as np
import pytest
from agents import CHAT, Parrot

import envs
from jaxrl.algos import grpo
from jaxrl.host_world import HostWorld
from jaxrl.lm.host.answers import Answers
from jaxrl.lm.host.ledger import Ledger
from jaxrl.lm.host.player import Host, take_turns
from jaxrl.lm.host.pool import Pool
from jaxrl.lm.host.speaker import Parts, Speaker, jitted, play
from jaxrl.lm.host.texts import encoded
from jaxrl.lm.host.worlds import Episode, Place, Worlds, gave
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text import to_str
from jaxrl.text.tool_forms import FORMS
from train.host_language import described, rows_of

MODULE = '''
import os, time, random

class Parrot:
    """Pays for each response that begins with an `a`, in two turns."""

    def reset(self, seed=None):
        self.turn = 0
        return "say a", {}

    def step(self, action):
        self.turn += 1
        hit = float(action[:1] == "a")
        return "ok", hit, self.turn == 2, False, {"success": hit}

class Fragile(Parrot):
    """In its first episode's second turn the process ends, once; in another it raises."""

    def step(self, action):
        if self.turn == 1:
            try:
                open(os.environ["ONCE"], "x").close()  # of several processes, one
                os._exit(3)
            except FileExistsError:
                pass
        return super().step(action)

class Fickle(Parrot):
    def reset(self, seed=None):
        return str(time.time()), {}

class Counter:
    def reset(self, question, answer, **row):
        self.count = 0
        return f" up to {answer}"

    def increment(self, by: int, times: int = 1) -> int:
        """Count up.

        Args:
            by: how far
            times (int): how often
        """
        self.count += by * times
        return self.count

    def get_reward(self):
        return self.count / 10

def look(name: str) -> dict:
    """Look a name up."""
    return {"name": name, "known": name == "Ada"}

def fails(what):
    """Fails.

    Args:
        what (str): anything
    """
    raise RuntimeError(what)

def untyped(what):
    """Says nothing of its type.

    Args:
        what: anything
    """

def silent(what: str):
    return what
'''


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "worlds_to_try.py").write_text(MODULE)
    (folder / "rows.jsonl").write_text('{"question": "count", "answer": 3}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("ONCE", str(folder / "once"))
        yield folder


def agent(env, sizes):
    return Agent(env, CHAT, sizes, replace(agents.MODEL, context=sizes.context), num_shown=2)


class Table:
    """Parrot inside the program and in Python, compiled once, with the same sizes."""

    def __init__(self):
        inside = Parrot()
        game = envs.make("worlds_to_try:Parrot").replace(turns=2, answer_bytes=8, truncates=False)
        self.sizes = limits(inside, CHAT)
        self.inside, self.game = agent(inside, self.sizes), agent(game, self.sizes)
        self.parts = jitted(Parts(self.game, 2, 3))
        self.who = Speaker(
            agents.params().policy,
            jax.random.key_data(jax.random.key(5)),
            grpo.Config(group_size=2, **agents.SMALL),
            game,
        )
        self.said = []

    def host(self, world, deadline=30.0, path=None):
        write = Transcriber(CHAT.tokenizer, 2)
        how = {"workers": 2, "deadline": deadline, "say": self.said.append}
        env = self.game.env.replace(world=f"worlds_to_try:{world}")
        host = Host(env, [], [], rows_of(env), write, **how)
        if path is not None:
            host.answers.open(path)
        return host

    def play(self, host):
        """(record, masked) of four prompts, in two halves that take turns."""
        out = {}
        index, place = np.arange(4, dtype=np.int32), Place(0, 0, 1)
        try:
            for _ in play(self.parts, host, self.who, index, 2, place, out):
                pass
        finally:
            host.close()
        return out["record"], out["masked"]


@pytest.fixture(scope="module")
def table(shelf):
    return Table()


@pytest.fixture(scope="module")
def told(table):
    host = table.host("Parrot")
    return *table.play(host), host.ledger.take()


def test_a_world_in_python_is_played_bit_for_bit_as_the_same_inside_the_program(table, told):
    parts = jitted(Parts(table.inside, 2, 3))
    record = parts["play"](table.who.replace(env=table.inside.env), np.arange(4, dtype=np.int32))[2]
    ours, masked, sums = told
    assert not masked.any() and int(ours.num_turns.sum()) == 16
    for name in ("token", "action", "turn", "log_prob", "length", "reward", "played", "cut",
                 "unread", "terminated", "truncated"):  # fmt: skip
        np.testing.assert_array_equal(getattr(ours, name), getattr(record, name), err_msg=name)
    assert sums["success"][1] == 8


def test_a_lost_process_masks_one_call_and_the_others_are_played_again(table, told, shelf):
    (shelf / "once").unlink(missing_ok=True)
    record, masked = table.play(table.host("Fragile"))
    assert masked.sum() == 1 and "its process ended (exit code 3)" in table.said[-1]
    kept = ~masked
    np.testing.assert_array_equal(record.token[kept], told[0].token[kept])
    np.testing.assert_array_equal(record.reward[kept], told[0].reward[kept])


def test_a_world_that_begins_otherwise_each_time_is_masked_and_stops_the_run(table):
    host = table.host("Fickle")
    _, masked = table.play(host)
    assert masked.sum() >= 4  # the second of each group, if no process had the first at hand
    with pytest.raises(ValueError, match="Fickle failed on every call: Broken: it begins in anoth"):
        host.ledger.take()


def test_a_replayed_episode_asks_nobody(table, told, shelf):
    path = shelf / "answers.jsonl"
    table.play(table.host("Parrot", path=path))
    host = table.host("Parrot", path=path)
    host.pool.ask = None  # nobody may be asked
    record, masked = table.play(host)
    assert not masked.any()
    np.testing.assert_array_equal(record.log_prob, told[0].log_prob)


def test_while_the_host_answers_one_half_the_other_decodes(table, monkeypatch):
    host, events = table.host("Parrot"), []

    def logged(name, f, half):
        def call(*args):
            events.append((name, half(*args)))
            return f(*args)

        return call

    go_on = logged("decode", table.parts["go_on"], lambda who, index, *_: int(index[0]) // 4)
    for name in ("settle", "ask"):
        one = (lambda x: x[0].episode) if name == "settle" else (lambda place, episode, _: episode)
        f = logged(name, getattr(host.worlds, name), lambda *x, one=one: one(*x).index // 8)
        monkeypatch.setattr(host.worlds, name, f)
    halves = [np.arange(4, dtype=np.int32), np.arange(4, 8, dtype=np.int32)]
    parts = table.parts | {"go_on": go_on}
    take_turns([play(parts, host, table.who, i, 2, Place(0, 0, 1), {}) for i in halves])
    host.close()
    order = [event for event, _ in itertools.groupby(events)]
    asked = [i for i, (name, _) in enumerate(order) if name == "ask"]
    assert len(asked) >= 6  # rounds of both halves
    for i in asked[1:-2]:
        half = order[i][1]
        between = order[i + 1 : order.index(("settle", half), i)]
        assert ("decode", 1 - half) in between


@pytest.fixture(scope="module")
def pool(shelf):
    pool = Pool(1, 30.0)
    yield pool
    pool.close()


def call(tool, **arguments):
    told = json.dumps({"name": tool, "arguments": arguments})
    return f"<tool_call>\n{told}\n</tool_call>"


def talk(pool, env, texts, start):
    """What each of these responses gets, until it is over."""
    worlds = Worlds(env, False, pool, Answers(), Ledger(print))
    episode, answers = Episode(0, start), []
    worlds.open(Place(0, 0, 1), 0, [start])
    for text in texts:
        answers += worlds.settle([worlds.ask(Place(0, 0, 1), episode, text)])
        if answers[-1].terminated or answers[-1].truncated:
            break
    return answers, worlds.ledger.sums


def test_tools_are_called_in_order_and_a_response_without_a_call_ends(pool, shelf):
    begins = envs.make("dataset", data=str(shelf / "rows.jsonl"), split="all")
    names = ("worlds_to_try:look", "worlds_to_try:fails")
    env = HostWorld(begins=begins, tools=names, turns=3)
    texts = [
        "thinking " + call("look", name="Ada") + "\n" + call("look", name="Bob"),
        call("fails", what="no") + call("gone") + "<tool_call>{",
        "done",
    ]
    answers, sums = talk(pool, env, texts, {"seed": 1, "row": {}})
    first, second, last = answers
    assert first.obs == (
        '<tool_response>\n{"name": "Ada", "known": true}\n</tool_response>\n'
        '<tool_response>\n{"name": "Bob", "known": false}\n</tool_response>'
    )
    assert "Error: RuntimeError: no\n" in second.obs and "there is no tool gone" in second.obs
    assert "Error: the call is no JSON" in second.obs and not second.masked
    assert last.terminated and last.reward == 0 and sums["tool_calls"] == [5.0, 3.0]
    llama = '{"name": "look", "parameters": {"name": "Ada"}}'
    env = env.replace(tool_form="bare")
    (answer,), _ = talk(pool, env, [llama], {"seed": 1, "row": {}})
    assert answer.obs == r'"{\"name\": \"Ada\", \"known\": true}"'


def test_what_calls_gave_is_shortened_between_its_marks():
    for name, form in FORMS.items():
        for most in (90, 120, 150):
            whole = gave(form, ["short", "\u00e4" * 500], most)
            assert 60 <= len(whole.encode()) <= most and "short" in whole and "..." in whole
            assert whole.endswith('..."' if name == "bare" else "...\n</tool_response>")
    assert gave(FORMS["tags"], ["a" * 90], 10) == FORMS["tags"].results([""])
    assert gave(FORMS["bare"], ["a" * 90], 92) == '"' + "a" * 90 + '"'


def test_a_class_of_tools_is_paid_at_its_end_or_when_its_turns_are_over(pool, shelf):
    env = envs.make("worlds_to_try:Counter", data=str(shelf / "rows.jsonl")).replace(turns=2)
    start = {"seed": 0, "row": {"question": "count", "answer": 3}}
    answers, _ = talk(pool, env, [call("increment", by=2, times=2), "that is it"], dict(start))
    assert start.get("told") is None and [a.reward for a in answers] == [0, 0.4]
    assert answers[1].terminated
    answers, _ = talk(pool, env, [call("increment", by=1)] * 3, dict(start))
    assert [a.reward for a in answers] == [0, 0.2] and answers[1].truncated
    assert "up to 3" in pool.ask(0, "open", env.world, {}, start).result().value


def test_schemas_are_of_types_and_docstrings(shelf):
    (one,) = described(envs.make("worlds_to_try:Counter"))
    assert one == {
        "type": "function",
        "function": {
            "name": "increment",
            "description": "Count up.",
            "parameters": {
                "type": "object",
                "properties": {
                    "by": {"type": "integer", "description": "how far"},
                    "times": {"type": "integer", "description": "how often"},
                },
                "required": ["by"],
            },
        },
    }
    for name, words in (
        ("untyped", "parameter what has no type; try what: str"),
        ("silent", "has no docstring; say in one line what it does"),
        ("gone", "has no 'gone'"),
    ):
        with pytest.raises(ValueError, match=words):
            described(HostWorld(tools=(f"worlds_to_try:{name}",)))


def test_texts_for_programs_are_whole_characters_and_end_in_dots_where_they_are_cut():
    text = encoded(["abc", "äöü", "e\u0301"], 8, 5)
    said = [to_str(jax.tree.map(lambda x: x[i], text)) for i in range(3)]  # noqa: B023
    assert said == ["abc", "ä...", "é"] and not text.cut.any()
    assert encoded(["abcd"], 3).cut.tolist() == [True]
