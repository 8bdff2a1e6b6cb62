"""Sizes that cannot hold what is said: refused before tracing, or the run stops early."""

from dataclasses import replace

import agents
import numpy as np
import pytest
from agents import CHAT, Parrot

from jaxrl.algos import grpo, sft
from jaxrl.lm.learn.lengths import (
    Lengths,
    check_lengths,
    fixed_answers,
    longest,
    players,
    unread_reason,
)
from jaxrl.lm.play.limits import limits

CFG = grpo.Config(**agents.SMALL, group_size=2)


def test_the_longest_of_each_part_is_what_the_players_make_of_it():
    """`say a` and its two signs; `ok`, the end of turn's two; `aaa` and its end."""
    env = Parrot(talk="aaa")
    assert len(players(env)) == 2
    assert longest(env, CHAT, players(env), episodes=2) == Lengths(7, 4, 4)


class Scolds(Parrot):
    """May answer what no player of it ever hears."""

    feedback = property(lambda self: ("ok", "that is no word"))
    feedback_bytes = property(lambda self: 15)


def test_what_may_be_answered_to_moves_that_no_player_makes_is_the_longest_too():
    env = Scolds(talk="aaa")
    assert fixed_answers(env) == ["ok", "that is no word"] and not fixed_answers(Parrot())
    assert longest(env, CHAT, players(env), episodes=2) == Lengths(7, 4 + 13, 4)


def check(env, cfg, scripted):
    sizes = limits(env, CHAT, cfg.response_tokens, 0, cfg.prompt_tokens, cfg.feedback_tokens)
    check_lengths("parrot", env, CHAT, sizes, cfg, scripted)


@pytest.mark.parametrize(
    ("sizes", "scripted", "words"),
    [
        ({"prompt_tokens": 6}, False, "prompt_tokens=6 is too short for parrot: a prompt of 7"),
        ({"feedback_tokens": 3}, True, "feedback_tokens=3 is too short for parrot: a feedback of"),
        ({"response_tokens": 3}, True, "response_tokens=3 is too short for parrot: a response of"),
    ],
)
def test_what_cannot_hold_what_is_said_is_refused_with_a_size_that_can(sizes, scripted, words):
    env = Parrot(talk="aaa")
    with pytest.raises(ValueError, match=words) as error:
        check(env, replace(CFG, **sizes), scripted)
    (name,), number = sizes, str(error.value).split("-tokens ")[1].split(",")[0]
    check(env, replace(CFG, **{name: int(number)}), scripted)


def test_the_policy_may_be_given_less_room_than_the_players_need_if_nobody_imitates_them():
    check(Parrot(talk="aaa"), replace(CFG, response_tokens=2), scripted=False)


def test_episodes_that_are_masked_may_lose_what_they_cannot_hold():
    check(Parrot(), replace(CFG, prompt_tokens=3, unread="mask"), scripted=False)


def test_a_run_in_which_something_was_not_read_stops_and_says_which_sizes_will_do():
    mine = agents.agent()
    short = replace(mine, limits=limits(mine.env, CHAT, first=5))
    for unknown in ({}, {"unread_share": np.array([np.nan])}, {"unread_share": 0.0}):
        assert unread_reason(unknown, agent=short) is None
    reason = unread_reason({"unread_share": np.array([0.0, 0.25])}, agent=short)
    assert reason is not None and "\n" not in reason and reason.startswith("unread_share=0.25: in")
    assert "5 and 4 tokens; try --algo.prompt-tokens 7 --algo.feedback-tokens 4" in reason
    other = unread_reason({"unread_share": 1.0}, agent=mine)
    assert other is not None and "no UTF-8" in other


def test_a_prompt_that_does_not_fit_is_told_in_the_first_iteration_of_the_warm_start():
    """Where no check before has seen it: the metric is there from the first iteration on."""
    mine = agents.agent()
    short = replace(mine, limits=limits(mine.env, CHAT, first=5))
    cfg = sft.Config(micro_batch=2, sft_episodes=2, total_episodes=2)
    program, of = agents.program(sft, cfg, short, max_count=1)
    of = program.place(of)
    _, log = program.run(program.init(of), of, program.scalar(1))
    assert agents.means(log, 0)["unread_share"] == 1
