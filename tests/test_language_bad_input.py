"""What a user of a language trainer may get wrong: one clear line before anything is compiled."""

import numpy as np
import pytest

from envs.language.guess_the_number import GuessTheNumber
from jaxrl import spaces
from jaxrl.algos import grpo, reinforce, sft
from jaxrl.env import timestep
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.play.episodes import empty
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text import ByteTokenizer, literal
from train import grpo as train_grpo
from train.language import check_player


class Silent(LanguageEnvironment):
    """A game that nobody has written a player for."""

    response_bytes: int = 4
    max_turns = property(lambda self: 1)
    prompt_bytes = property(lambda self: 1)
    feedback_bytes = property(lambda self: 1)

    def reset(self, key):
        del key
        return (), timestep(literal("?"))

    def step(self, state, action, key):
        del action, key
        return state, timestep(literal("!"), terminated=True)


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({"env": "CartPole-v1"}, {}, "env=CartPole-v1 is not spoken to; try language/Guess"),
        ({"model": "huge"}, {}, "model=huge is no preset and no folder; try one of nano, tiny"),
        ({"init_from": "nowhere"}, {}, "nowhere holds neither policy/model.json nor"),
        ({"split": True}, {"optimizer": "muon"}, "optimizer=muon needs whole matrices"),
        ({}, {"context": 50}, "context=50 is too short for the longest episode, which needs"),
        (
            {"env": "language/GuessTheNumbr-easy"},
            {},
            "No environment 'language/GuessTheNumbr-easy'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_before_the_first_trace(
    options, config, message, tmp_path
):
    if "init_from" in options:
        options = options | {"init_from": tmp_path.parent / options["init_from"]}
        message = message.replace("nowhere", str(options["init_from"]))
    with pytest.raises(ValueError) as error:
        train_grpo.TRAINER.setup(train_grpo.Args(algo=grpo.Config(**config), **options))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("player", ["random", "expert"])
def test_a_warm_start_needs_somebody_who_plays(player):
    with pytest.raises(ValueError, match=f"sft_player={player}: silent has no such player; write"):
        check_player("silent", Silent(), player)
    check_player("guess", GuessTheNumber(), player)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (grpo.Config, {"group_size": 1}, "group_size=1 must be at least 2"),
        (grpo.Config, {"num_minibatches": 3}, "num_minibatches=3 does not divide num_prompts=64"),
        (grpo.Config, {"micro_batch": 7}, "micro_batch=7 does not divide"),
        (grpo.Config, {"temperature": 0.0}, "temperature=0.0 must be a finite number above 0"),
        (grpo.Config, {"learning_rate": float("nan")}, "learning_rate=nan must be a finite number"),
        (reinforce.Config, {"advantage": "rloo"}, "group_size=1 is too small for rloo"),
        (reinforce.Config, {"gamma": 1.5}, "gamma=1.5 must lie in [0.0, 1.0]"),
        (sft.Config, {"sft_steps": 3}, "sft_steps=3 belongs to other trainers"),
    ],
)
def test_options_out_of_range_are_refused(config, options, message):
    with pytest.raises(ValueError) as error:
        config(**options)
    assert str(error.value).startswith(message)


def test_a_space_of_texts_samples_what_it_contains_and_survives_json():
    space = spaces.TextSpace(6)
    assert spaces.from_json(spaces.to_json(space)) == space
    assert bool(space.contains(literal("abc", 6)))
    assert not bool(space.contains(literal("abc", 7)))
    assert not bool(space.contains(literal("abc", 6).replace(length=np.int32(2))))


def test_an_episode_is_transcribed_turn_by_turn():
    record = empty(1, 16, 2, ["success"])
    said = [(257, False, 0), (ord("a"), False, 0), (258, False, 0), (ord("x"), True, 0)]
    said += [(256, True, 0), (257, False, 1), (ord("b"), False, 1), (258, False, 1)]
    said += [(ord("y"), True, 1), (ord("z"), True, 1)]
    token, action, turn = (np.asarray(column) for column in zip(*said, strict=True))
    pad = lambda x: np.pad(x, (0, 16 - len(x)))[None, None]  # noqa: E731
    record = record.replace(
        token=pad(token).astype(np.int32),
        action=pad(action),
        turn=pad(turn),
        length=np.asarray([[10]]),
        reward=np.asarray([[[0.25, 1.0]]], np.float32),
        played=np.asarray([[[True, True]]]),
        cut=np.asarray([[[False, True]]]),
        unread=np.asarray([[False]]),
        terminated=np.asarray([[True]]),
        truncated=np.asarray([[False]]),
        metrics={"success": np.asarray([[1.0]], np.float32)},
    )
    (line,) = Transcriber(ByteTokenizer(), 4)(record, 3, 96, 7)
    assert line == {
        "iteration": 3,
        "env_episodes": 96,
        "seed": 7,
        "prompt": 0,
        "sample": 0,
        "turns": [
            {"observation": "a", "response": "x", "reward": 0.25, "cut": False},
            {"observation": "b", "response": "yz", "reward": 1.0, "cut": True},
        ],
        "return": 1.25,
        "metrics": {"success": 1.0},
        "ended": "terminated",
    }
