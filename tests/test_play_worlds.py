"""Worlds and players of train.play: runs, models, chance and experts, and values in words."""

import json
from dataclasses import replace

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrl import envs
from jaxrl.lm import Transformer, folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model.transformer import logits, read
from jaxrl.lm.play.limits import limits
from jaxrl.networks import NetworkSpec, build
from jaxrl.policy import Policy, save_policy
from jaxrl.spaces import Box, Discrete, MultiDiscrete, TextSpace
from jaxrl.text import literal
from jaxrl.train import play, table
from jaxrl.train.playing import session, values
from jaxrl.train.playing.players import ModelPilot, PolicyPilot
from jaxrl.train.playing.world import World, Worlds, make_world
from jaxrl.train.run_folder import run_options


def game_of(world):
    """A session in it."""
    return session.Sessions(Worlds(world)).open("")[1]


def test_chance_keeps_to_the_legal_actions_and_the_page_knows_them():
    world = make_world("probe/Doors-v0", {"doors": 16, "open_doors": 1})
    opened = game_of(world)
    view = opened.reset(1)
    for _ in range(8):
        assert sum(view["legal"]) == 1
        view = opened.step(player="random")
        assert view["end"] == "" and view["line"]["reward"] == 1


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """A policy with a memory for MemoryChain-v0."""
    env = envs.make("MemoryChain-v0")
    spec = NetworkSpec(env.observation_space, env.action_space, "gru", (8,), "tanh")
    network = build(spec, jax.random.key(2), memory=True)
    return Policy(network, None, spec, env.action_space, "none")


def test_a_policy_remembers_an_episode_whoever_acts_and_forgets_what_was_undone(recurrent):
    world = make_world("MemoryChain-v0", {}, PolicyPilot(recurrent, "runs/x"))
    opened = game_of(world)
    opened.reset(0)
    assert list(world.players) == ["random", "greedy", "sampled"]
    opened.step(0)
    opened.step(player="random")
    opened.undo()
    opened.step(player="greedy")
    memory, moments = recurrent.begin(), list(opened.past)
    for moment in moments:
        np.testing.assert_allclose(moment.memory, memory, rtol=1e-5)
        memory, action = recurrent.step(memory, moment.obs)
        last = moments[-1].action if moment is moments[-2] else str(int(action))
        assert moment is not moments[-2] or last == str(int(action))
    opened.reset()
    np.testing.assert_array_equal(opened.now.memory, recurrent.begin())


def test_a_run_brings_its_environment_and_is_told_where_it_does_not_fit(recurrent, tmp_path):
    save_policy(tmp_path / "policy", jax.tree.map(lambda x: x[None], recurrent))
    options = table.trainer("ppo").options(env="MemoryChain-v0", env_args=("length=3",))
    config = {"trainer": "ppo", "options": run_options(options)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    world, pilot = play.chosen(play.Args(run=tmp_path, env_args=("length=4",)))
    assert (world.id, world.fields) == ("MemoryChain-v0", {"length": 4})
    assert "greedy" in world.players and world.described()["note"] == ""
    other = make_world("GridWorld-v0", {}, pilot)
    assert list(other.players) == ["random"] and "was trained for the spaces" in other.note
    with pytest.raises(ValueError, match=r"^run=.* but env=GridWorld-v0 has Discrete\(n=16\) and"):
        play.chosen(play.Args(run=tmp_path, env="GridWorld-v0"))
    with pytest.raises(ValueError, match=r"^seed_index=3 must lie in \[0, 0\]; try 0\.$"):
        play.chosen(play.Args(run=tmp_path, seed_index=3))
    (tmp_path / "policy" / "policy.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no policy\.json: give a finished run"):
        play.chosen(play.Args(run=tmp_path))


class Mind:
    """A small language model that has been trained in nothing."""

    def __init__(self):
        env = agents.Parrot(says="say a", turns=3)
        sizes = limits(env, agents.CHAT)
        config = replace(agents.MODEL, context=sizes.context)
        self.model = Transformer(config, nnx.Rngs(params=jax.random.key(3)))
        self.model.layers = jax.tree.map(lambda x: 8 * x, self.model.layers)
        self.chat = HostChat(folders.chat_tokenizer(None))
        agent = Agent(env, agents.CHAT, sizes, config)
        self.pilot = ModelPilot(self.model, self.chat, agent, "runs/x")


def test_a_language_model_goes_on_from_what_a_person_said_and_from_where_one_went_back():
    mind = Mind()
    game = game_of(World("parrot", agents.Parrot(turns=3), {}, mind.pilot))
    game.reset(0)
    game.step("ab")
    game.step("c")
    game.undo()
    view = game.step(player="greedy")
    said = [i for i, _ in view["talk"]["said"]]
    chat, end = mind.chat, mind.chat.chat.end_of_turn
    whole = [*chat.user(chat.chat.first_piece, "say a"), 97, 98, end]
    whole += chat.user(chat.chat.next_piece, "ok")
    start, whole = len(whole), whole + said
    likeliest = jnp.argmax(logits(mind.model, read(mind.model, jnp.asarray([whole]))[0]), -1)
    assert said and likeliest[start - 1 : -1].tolist() == said
    assert view["talk"]["tokens"] == len(whole) + 1 + len(view["talk"]["heard"])
    longer = mind.pilot.unfit("parrot", agents.Parrot(says="say a" * 9))
    assert longer.endswith("env=parrot has longer texts or episodes than it; leave --env out.")
    assert "is not spoken to" in mind.pilot.unfit("GridWorld-v0", envs.make("GridWorld-v0"))


def test_texts_are_heard_as_tokens_and_the_expert_wins():
    world = make_world("language/GuessTheNumber-easy", {"prompt": "instruct"})
    opened = game_of(world)
    view = opened.reset(5)
    heard = view["talk"]["heard"]
    plain = bytes(i for i, _ in heard if i < 256).decode()
    assert view["talk"]["turns"][0]["obs"] in plain and view["talk"]["tokens"] == len(heard)
    assert (257, "<|user|>") in [tuple(x) for x in heard]
    wrong = opened.step("what")
    assert wrong["talk"]["said"][:1] == [(119, "w")] and wrong["line"]["terminated"]
    assert wrong["line"]["call"].endswith("env.step('what')")
    opened.undo()
    while not view["end"]:
        view = opened.step(player="expert")
    assert view["line"]["reward"] == 1 and view["line"]["info"]["success"] == 1
    opened.reset()
    with pytest.raises(ValueError, match=r"^a move has at most \d+ bytes, this has 9000; shorten"):
        opened.step("y" * 9000)


def test_names_are_as_many_as_actions_and_pass_through_wrappers():
    pytest.importorskip("gymnax")
    named = {}
    for id in ("GridWorld-v0", "SimpleCorridor-v0", "CartPole-v1", "Acrobot-v1", "MountainCar-v0"):
        named[id] = envs.make(id)
    for name in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"):
        named[name] = envs.make(f"{name}-MinAtar")
    for id, env in named.items():
        assert len(env.action_names) == env.action_space.n, id
    assert named["Breakout"].action_names == ("stay", "left", "right")
    for id in ("MountainCarContinuous-v0", "Pendulum-v1", "Pong-misc", "probe/Doors-v0"):
        assert envs.make(id).action_names == (), id


def test_literals_are_the_values_in_python_and_what_lies_outside_of_a_space_is_refused():
    box = Box(-1.0, 2.0, (3,))
    pairs = {"a": box, "b": (Discrete(3), TextSpace(9))}
    value = {"a": np.array([0.1, -1, 1 / 3], np.float32), "b": (np.int32(2), literal("a'\\n\n", 9))}
    again = eval(values.literal_of(pairs, value), {"np": np})
    np.testing.assert_array_equal(again["a"], value["a"])
    assert again["a"].dtype == np.float32 and again["b"] == (2, "a'\\n\n")
    assert values.given(box, [0, 1.5, 2]).dtype == np.float32
    assert values.given(MultiDiscrete((2, 3)), [1, 2]).tolist() == [1, 2]
    for space, wrong in (
        (box, [0, 1, 2.1]),
        (box, [0, 1]),
        (box, 0.5),
        (box, [None, 0, 0]),
        (box, [1e400, 0, 0]),
        (MultiDiscrete((2, 3)), [1, 3]),
        (MultiDiscrete((2, 3)), [1.0, 2.0]),
        (TextSpace(4), 3),
        (pairs, {}),
    ):
        with pytest.raises(ValueError, match=r"action|move"):
            values.given(space, wrong)


def test_pictures_of_channels_tell_which_one_is_set():
    x = np.zeros((2, 3, 4), bool)
    x[0, 1, 2] = x[1, 2, 0] = True
    seen = values.drawn(Box(False, True, x.shape, np.bool_), x)
    assert (
        seen is not None
        and seen.shape == (2, 3, 3)
        and len(np.unique(seen.reshape(-1, 3), axis=0)) == 3
    )
    assert tuple(seen[0, 1]) == tuple(values.CHANNELS[2])
    assert values.drawn(Discrete(3), np.int32(1)) is None
