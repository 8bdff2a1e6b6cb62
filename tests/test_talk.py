"""Talking to a model in the terminal: its tokens, its stream, and how it ends."""

import io
import sys
from dataclasses import replace

import agents
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxrl.lm import Transformer, folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.options import PlayConfig
from jaxrl.lm.model.transformer import logits, read
from jaxrl.lm.play import talk as talking
from jaxrl.lm.play.talk import Full, Talk
from train import chat, language

END = agents.CHAT.end_of_turn
GUESS = ["--env", "language/GuessTheNumber-easy", "--seed", "1"]


@pytest.fixture(scope="module")
def model():
    """With louder layers, so that the likeliest token is not always the same."""
    made = Transformer(replace(agents.MODEL, context=64), nnx.Rngs(params=jax.random.key(3)))
    made.layers = jax.tree.map(lambda x: 8 * x, made.layers)
    return made


@pytest.fixture
def host():
    return HostChat(folders.chat_tokenizer(None))


def talk_to(model, host, **how):
    how = {"context": 64, "temperature": None} | how
    return Talk(model, host, **how)


def test_a_greedy_conversation_is_the_likeliest_token_each_time_whatever_the_chunks(
    model, host, monkeypatch
):
    monkeypatch.setattr(talking, "SHORT", 4)
    monkeypatch.setattr(talking, "LONG", 8)
    monkeypatch.setattr(talking, "FIRST", 16)
    talk = talk_to(model, host)
    whole: list[int] = []
    drawn: list[int] = []  # where the model's tokens stand
    for text in ("Hello, you", "x", "What is 2+2?"):
        piece = host.chat.next_piece if whole else host.chat.first_piece
        whole += [END] * bool(whole) + host.user(piece, text)
        talk.say(text)
        said = list(talk.reply(5))
        drawn += range(len(whole), len(whole) + len(said))
        whole += said
        assert said and talk.length == len(whole)
    likeliest = jnp.argmax(logits(model, read(model, jnp.asarray([whole]))[0]), -1)
    assert [whole[i] for i in drawn] == [int(likeliest[i - 1]) for i in drawn]
    assert len({whole[i] for i in drawn}) > 2
    assert talk.cache.capacity == 64
    talk.reset()
    talk.say("x")
    again = talk_to(model, host)
    again.say("x")
    assert list(talk.reply(9)) == list(again.reply(9))


def test_draws_follow_the_seed_and_a_conversation_that_is_full_stays_as_it_was(model, host):
    said = []
    for seed in (1, 1, 2):
        talk = talk_to(model, host, temperature=1.0, seed=seed)
        talk.say("Hi")
        said.append(list(talk.reply(20)))
    assert said[0] == said[1] != said[2]
    talk.reset()
    talk.say("Hi")
    assert list(talk.reply(20)) not in said, "another conversation is drawn anew"
    length = talk.length
    with pytest.raises(Full, match=r"would have \d+ tokens, where context=64$"):
        talk.say("y" * 60)
    assert talk.length == length
    talk.say("z")
    assert len(list(talk.reply(99))) < 64 and talk.length < 64


class Says:
    """A talk that says these bytes to everything."""

    def __init__(self, *tokens, host, context=4096):
        self.tokens, self.host, self.heard = tokens, host, []
        self.ended, self.length, self.context = True, 0, context

    def say(self, text):
        self.heard.append(text)

    def reply(self, most):
        yield from self.tokens[:most]

    def reset(self):
        self.heard.append("RESET")


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_lines_are_answered_as_they_come_and_characters_are_shown_whole(monkeypatch, capsys, host):
    said = Says(*"n\u00fc \u4f60\U0001f600\x1b[2J".encode(), 0xE4, 0xBD, host=host)
    monkeypatch.setattr(chat, "load", lambda args, env=None: said)
    shown = []
    monkeypatch.setattr(chat, "show", shown.append)
    typed(monkeypatch, "Hi\n\n  \n/reset\nyou\r\n/exit\nnever\n")
    chat.main(chat.Args(model="x", verbose=True))
    assert said.heard == ["Hi", "RESET", "you"]
    assert "".join(shown) == "n\u00fc \u4f60\U0001f600\\x1b[2J\ufffd\n" * 2
    assert "\u4f60" in shown  # a character at a time, not the reply at its end
    assert capsys.readouterr().err.count("17 tokens, ") == 2


def test_control_c_stops_the_reply_and_not_the_command(monkeypatch, host):
    terminal = chat.Terminal(False)
    shown = []

    def show(text):
        shown.append(text)
        if text == "b":
            assert terminal.remembers(2)
            assert not terminal.remembers(2)  # the second one ends it

    monkeypatch.setattr(chat, "show", show)
    assert terminal.stream(iter(b"abcdef"), host.words) == list(b"ab")
    assert "".join(shown) == "ab\n"
    assert not terminal.remembers(2)  # nothing is being written


def test_a_saved_run_talks_and_what_cannot_is_one_line(tmp_path, model, capsys, monkeypatch):
    spoken = folders.chat_tokenizer(None)
    cfg = replace(agents.MODEL, context=64)
    folders.save_models(spoken, cfg, tmp_path, jax.tree.map(lambda x: x[None], model))
    (data := tmp_path / "rows.jsonl").touch()
    typed(monkeypatch, "Hello\n")
    chat.run(["--model", str(tmp_path), "--temperature", "0", "--max-tokens", "3"])
    out, err = capsys.readouterr()
    assert out.endswith("\n") and "cut at max_tokens=3" in err
    for argv, words in (
        (["--model", "nano"], "model=nano is no folder; give a run's, one saved by transformers,"),
        ([], "model= names none; give a folder or an id, as Qwen/Qwen3-0.6B."),
        (["--you"], "you=True needs an environment; try --env"),
        (["--model", str(tmp_path), "--thinking", "on"], f"thinking=on: {tmp_path} has its own;"),
        (["--model", str(tmp_path), "--chat", "plain"], f"chat=plain: {tmp_path} has its own;"),
        ([*GUESS, "--you", "--model", "x"], "model=x is not asked where you play; leave it out."),
        (["--model", "x", "--env-args", "a=1"], "env_args=a=1 needs an environment; give --env"),
        (["--model", "x", "--data", str(data)], f"{data} is not read by env=None; try --env data"),
        ([*GUESS, "--you", "--data", str(data)], f"is not read by env={GUESS[1]}; try --env data"),
        ([*GUESS, "--model", str(tmp_path)], "context=64 is too short for language/GuessTheNumb"),
        (["--model", str(tmp_path), "--system", "Hi"], "chat=plain has no system messages"),
        (["--model", str(tmp_path), "--context", "65"], "context=65 is more than the 64 tokens"),
        (["--model", str(tmp_path), "--temperature", "-1"], "temperature=-1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            chat.run(argv)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and words in said and len(said.splitlines()) == 1


def test_a_person_plays_an_environment(monkeypatch, capsys):
    typed(monkeypatch, "x" * 999 + "\n" + "\n".join(rf"\boxed{{{i}}}" for i in range(1, 9)) + "\n")
    chat.run([*GUESS, "--you"])
    out, err = capsys.readouterr()
    assert out.startswith("| I have chosen a whole number") and "turn 1: reward " in out
    assert "terminated: return " in out and "success " in out
    assert "a move has at most" in err
    typed(monkeypatch, "")
    chat.run([*GUESS, "--you"])
    assert capsys.readouterr().out == out.partition("turn 1")[0]


def test_a_model_plays_an_environment(monkeypatch, capsys, host):
    said = Says(*rb"\boxed{5}", host=host)
    monkeypatch.setattr(chat, "load", lambda args, env=None: said)
    chat.run([*GUESS, "--model", "x"])
    out = capsys.readouterr().out
    assert "\n\\boxed{5}\nturn 1: reward " in out and ": return " in out
    assert len(said.heard) == out.count(": reward ")


def test_replies_are_as_long_as_the_longest_episode_leaves_room_for(model, host, monkeypatch):
    env = language.make_env(GUESS[1], {})
    args = chat.Args(model="x", env=GUESS[1], max_tokens=9)
    sizes = language.sizes_of(env, host.chat, PlayConfig(response_tokens=3 + 1))
    terminal = chat.Terminal(False)

    def most(context):
        return chat.Player(args, Says(host=host, context=context), terminal, env).most

    assert [most(sizes.context + x) for x in (-1, 0, 10**4)] == [2, 3, 9]
    # And so none is too short: every turn with the longest observation and reply.
    talk = talk_to(model, host, context=sizes.context)
    monkeypatch.setattr(
        talk, "_take", lambda tokens: setattr(talk, "length", talk.length + len(tokens))
    )
    monkeypatch.setattr(talk, "next", [ord("x")])
    for turn in range(env.max_turns):
        talk.say("y" * (env.feedback_bytes if turn else env.prompt_bytes))
        assert len(list(talk.reply(3))) == 3
