"""Language models before and after training: what is played, and what is told of it."""

import json
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algos import grpo
from jaxrl.env import static
from jaxrl.language import ANSWER
from jaxrl.lm.learn.report import FAILED, VARIED, last_cut, played_metrics, reasons
from jaxrl.lm.learn.sizes import cache
from jaxrl.lm.play.rounds import Work
from jaxrl.metrics import Sums
from jaxrl.program import members
from jaxrl.train import before, evaluate, fresh


class Listed(agents.Parrot):
    """Five questions, of which the last two are held back; the row is told at the end."""

    turns: int = static(1)
    split: str = static("train")

    @property
    def num_rows(self):
        return 3 if self.split == "train" else 2

    @property
    def held_out(self):
        return self.replace(split="test")

    def reset(self, key):
        return self.reset_row(jax.random.randint(key, (), 0, self.num_rows), key)

    def reset_row(self, row, key):
        del key
        row = jnp.asarray(row, jnp.int32) + (3 if self.split == "test" else 0)
        _, ts = super().reset(jax.random.key(0))
        return agents.Said(row), ts.replace(metrics=self.of_row(row))

    def step(self, state, action, key):
        _, ts = super().step(agents.Said(jnp.zeros((), jnp.int32)), action, key)
        return state, ts.replace(metrics=self.of_row(state.turn))

    def of_row(self, row):
        answer = jnp.asarray([7, -1, 7, 8, 9], jnp.float32)[row]
        return {"success": (row == 3).astype(jnp.float32), "row": row * 1.0, ANSWER: answer}


def players(way: fresh.Way, seeds: tuple[int, ...] = (0,)) -> evaluate.Players:
    agent = agents.agent(Listed())
    models = jax.tree.map(lambda x: jnp.stack([x] * len(seeds)), agents.params().policy)
    cfg: Any = agents.SMALL
    of = members(seeds, grpo.Config(group_size=2, **cfg), agent.env)
    return evaluate.Players(models, of, agent, way)


def played(way: fresh.Way, wanted: int, **how: Any) -> fresh.Outcomes:
    who = players(way)
    return fresh.play(who.models, who.members, wanted, who.agent, way, **how)


def test_rows_are_played_in_their_order_each_once_and_not_more_than_there_are():
    assert played(fresh.Way(samples=2), 0)["row"].tolist() == [[0, 0, 1, 1, 2, 2]]
    assert fresh.num_prompts(Listed(), 9) == 3 and fresh.num_prompts(Listed(), 2) == 2
    assert played(fresh.Way(held_out=True), 0)["row"].tolist() == [[3, 4]]


def test_what_is_played_in_pieces_is_what_is_played_at_once(monkeypatch):
    whole = played(fresh.Way(samples=2), 3)
    who = agents.agent(Listed())
    two = 2 * cache(who.model_config, 1, who.limits.first)
    monkeypatch.setattr(fresh, "CACHE_BYTES", two)
    seen: list[int] = []
    parts = played(fresh.Way(samples=2, kept=4), 3, keep=lambda shown, first: seen.append(first))
    assert seen == [0, 2] and parts.keys() == whole.keys()
    for name, x in whole.items():
        np.testing.assert_array_equal(parts[name], x, err_msg=name)


def test_the_likeliest_tokens_do_not_depend_on_the_seed():
    way = fresh.Way(greedy=True)
    who = players(way, (0, 1))
    found = fresh.play(who.models, who.members, 3, who.agent, way)
    np.testing.assert_array_equal(found["tokens"][0], found["tokens"][1])


def test_an_evaluation_tells_success_votes_and_transcripts(tmp_path, capsys):
    way = fresh.Way(samples=2, held_out=True)
    file = tmp_path / "all.jsonl"
    args = evaluate.Args(run=tmp_path, episodes=0, samples=2, show=1, out=file)
    told = evaluate.play(args, players(way))
    assert told["success"]["mean"] == 0.5 and told["success"]["prompts"] == 2
    assert told["pass_at"] == {"1": 0.5, "2": 0.5} and told["majority_at"] == {"2": 0.5}
    assert sum(told["failed"].values()) == 1 and told["metrics"].keys() >= {"row", "success"}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(x["prompt"], x["sample"]) for x in lines] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert capsys.readouterr().out.count("prompt ") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "run=None and model=None: one of them"),
        ({"run": ".", "model": "nano"}, "run=. and model=nano: one of them"),
        ({"run": ".", "env": "x"}, "env=x: the run has its own"),
        ({"model": "nano"}, "env= must name"),
        ({"model": "nano", "env": "x", "greedy": True, "samples": 2}, "greedy=True draws nothing"),
        ({"model": "nano", "env": "x", "temperature": 0.0}, "temperature=0.0 must be"),
        ({"model": "nano", "env": "x", "samples": 0}, r"samples=0 must lie"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        evaluate.Args(**options)


def test_who_has_no_rows_has_not_all_of_them():
    who = players(fresh.Way())
    args = evaluate.Args(model="nano", env="x", episodes=0)
    other = evaluate.Players(who.models, who.members, agents.agent(), fresh.Way())
    with pytest.raises(ValueError, match="episodes=0 takes every row"):
        evaluate.play(args, other)


def test_the_first_reason_that_holds_counts():
    metrics = {
        "success": np.asarray([1, 0, 0, 0, 0.0]),
        "no_answer": np.asarray([0, 1, 1, 0, 0.0]),
        "wrong_form": np.asarray([1, 1, 1, 1, 0.0]),
    }
    cut = np.asarray([True, True, False, False, False])
    found = reasons(metrics, cut)
    assert {name: np.flatnonzero(x).tolist() for name, x in found.items()} == {
        "cut": [1],
        "no_answer": [2],
        "wrong_form": [3],
        "wrong": [4],
    }
    few = reasons({"success": metrics["success"]}, cut)
    assert few["wrong"].tolist() == [False, False, True, True, True] and few["cut"].sum() == 1
    assert reasons({}, cut) == {}


def test_an_early_cut_is_not_why_an_episode_failed():
    cut = jnp.asarray([[True, False], [False, True], [True, True]])
    record = agents.episodes(np.zeros((3, 2)), cut=cut)
    record = record.replace(played=record.played.at[2, 1].set(False))
    assert last_cut(record).tolist() == [False, True, True]
    zero = jnp.float32(0)
    known = played_metrics(record, Work(zero, zero), record.action[:, 1:])
    assert [float(known[f"failed_{name}"].numerator) for name in FAILED] == [1, 0, 0, 2]
    assert float(known[VARIED].numerator) == 0


def host(success: float, varied: float) -> dict[str, Sums]:
    """Two iterations of two seeds, 8 episodes each; the second succeeds always."""

    def sums(first: float, second: float, count: float = 8.0) -> Sums:
        above: Any = np.asarray([[first] * 2, [second] * 2])
        below: Any = np.full((2, 2), count)
        return Sums(above, below)

    why = {f"failed_{name}": sums(0.0, 0.0, 6.0) for name in FAILED}
    why["failed_wrong"], why["failed_cut"] = sums(4.0, 0.0, 6.0), sums(2.0, 0.0, 6.0)
    return {"success": sums(success, 8.0), VARIED: sums(varied, 1.0)} | why


def test_what_is_told_before_training_is_of_that_iteration_alone():
    found = before.before(host(2.0, 1.0), 0)
    assert found is not None and found["success"] == 0.25 and found["episodes"] == 16
    lines = before.words(found, False, agents.Parrot(), "runs/x")
    end = "success 0.25 over 16 episodes; failed: 0.67 wrong, 0.33 cut"
    assert lines == [f"before training: {end}"]
    assert before.words(found, True, agents.Parrot(), "")[0].startswith("after the warm start")


def test_a_start_that_never_scores_is_told_with_what_to_do():
    found = before.before(host(0.0, 0.0), 0)
    assert found is not None
    _, advice = before.words(found, False, agents.Parrot(), "runs/x")
    assert "--run runs/x" in advice and "prompt=instruct" in advice and "response-tokens" in advice
    paid = before.before(host(0.0, 1.0), 0)  # rewards differ: something can be learned
    assert paid is not None and len(before.words(paid, False, agents.Parrot(), "")) == 1


def test_scripted_play_is_no_start():
    scripted = host(2.0, 1.0)
    del scripted[VARIED]
    assert before.before(scripted, 0) is None
