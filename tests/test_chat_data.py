"""Conversations from JSONL: their tokens and masks, broken lines, and the reader of transcripts."""

import json
import re

import jax
import numpy as np
import pytest
import tokenizer_files

from jaxrl.algos import sft
from jaxrl.lm import folders
from jaxrl.text import literal
from train import chat_data, transcripts
from train import sft as train_sft


def line(*contents: str) -> str:
    roles = ["user", "assistant"]
    said = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return json.dumps({"messages": said})


def test_a_conversation_has_the_tokens_that_play_would_record_and_the_assistants_are_marked(
    tmp_path,
):
    path = tmp_path / "chat.jsonl"
    path.write_text(line("Hi", "Yes.", "More?", "No") + "\n\n" + line("a", "b") + "\n")
    said = folders.chat_tokenizer(tokenizer_files.file("qwen2"))
    record = chat_data.read(path, said)
    chat = said.chat
    texts = [
        (chat.first, "Hi"),
        (chat.response, "Yes."),
        (chat.next, "More?"),
        (chat.response, "No"),
    ]
    expected, action = [], []
    for say, text in texts:
        tokens = jax.jit(say, static_argnums=1)(literal(text, 8), 40)
        ids = np.asarray(tokens.ids)[: int(tokens.length)].tolist()
        expected += ids
        action += [say == chat.response] * len(ids)
    length = int(record.length[0])
    assert np.asarray(record.token[0])[:length].tolist() == expected
    assert np.asarray(record.action[0])[:length].tolist() == action
    assert int(record.length[1]) < length and not np.asarray(record.action[1])[length - 1]


@pytest.mark.parametrize(("kind", "form"), [("qwen2", "chatml"), ("llama3", "llama3")])
def test_a_system_message_opens_its_conversation_as_it_would_every_one(tmp_path, kind, form):
    path = tmp_path / "chat.jsonl"
    system = {"role": "system", "content": "Be brief, 2 words."}
    told = {"messages": [system, *json.loads(line("Hi", "Yes."))["messages"]]}
    path.write_text(json.dumps(told) + "\n" + line("Hi", "Yes.") + "\n")
    file = tokenizer_files.file(kind)
    record = chat_data.read(path, folders.chat_tokenizer(file, form))
    chat = folders.chat_tokenizer(file, form, system["content"]).chat
    tokens = jax.jit(chat.first, static_argnums=1)(literal("Hi", 8), 80)
    expected = np.asarray(tokens.ids)[: int(tokens.length)].tolist()
    action = np.asarray(record.action[0])
    assert np.asarray(record.token[0])[: len(expected)].tolist() == expected
    assert not action[: len(expected)].any() and action[len(expected)]
    assert int(record.length[0]) > int(record.length[1])  # the second has none


def test_a_system_message_needs_a_form_that_has_them(tmp_path):
    path = tmp_path / "chat.jsonl"
    system = {"role": "system", "content": "s"}
    path.write_text(json.dumps({"messages": [system, *json.loads(line("x", "y"))["messages"]]}))
    with pytest.raises(ValueError, match="line 1: chat=plain has no system messages"):
        chat_data.read(path, folders.chat_tokenizer(None))


def test_bytes_may_be_of_any_language(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(line("caf\u00e9", "\u4f60"), encoding="utf-8")
    record = chat_data.read(path, folders.chat_tokenizer(None))
    token = np.asarray(record.token[0])
    assert bytes(token[token < 256].astype(np.uint8)).decode() == "caf\u00e9\u4f60"


BROKEN = [
    ("{", "line 2: no JSON"),
    ("[]", 'line 2: an object with a list "messages" is needed.'),
    ('{"messages": []}', 'line 2: an object with a list "messages" is needed.'),
    ('{"messages": [{"role": "user"}]}', 'line 2: message 0 needs "role" and "content"'),
    (
        '{"messages": [{"role": "assistant", "content": "x"}]}',
        "line 2: message 0 is 'assistant', not 'user'.",
    ),
    (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}',
        "line 2: message 1 is 'user', not 'assistant'.",
    ),
    (line("only"), "line 2: there is no assistant's message to learn from."),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN)
def test_a_broken_line_is_named_and_nothing_is_read(broken, words, tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(line("a", "b") + "\n" + broken + "\n" + line("c", "d"))
    with pytest.raises(ValueError, match=re.escape(words)):
        chat_data.read(path, folders.chat_tokenizer(None))


def test_a_file_that_is_none_or_empty_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        chat_data.read(tmp_path / "none.jsonl", folders.chat_tokenizer(None))
    (tmp_path / "chat.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no conversations"):
        chat_data.read(tmp_path / "chat.jsonl", folders.chat_tokenizer(None))


def test_a_trainer_draws_its_examples_from_the_file(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(line("x" * 200, str(i)) for i in range(5)))
    args = train_sft.Args(data=path, algo=sft.Config(sft_episodes=8, micro_batch=8))
    _, agent, _ = train_sft.language.make_agent(args, args.algo)
    assert agent.examples is not None and agent.examples.length.shape == (5,)
    assert agent.limits.context == agent.examples.token.shape[1] == 200 + 2 + 2
    with pytest.raises(ValueError, match="context=120 is too short for"):
        cfg = sft.Config(context=120)
        train_sft.language.make_agent(train_sft.Args(data=path, algo=cfg), cfg)


def test_transcripts_are_shown_turn_by_turn(tmp_path, capsys):
    turn = {"observation": "1-10?\nGo", "response": "5", "reward": 0.5, "cut": True}
    episode = {"iteration": 3, "seed": 0, "prompt": 1, "sample": 2, "return": 0.5}
    episode |= {"ended": "terminated", "metrics": {"success": 0.0}, "turns": [turn, turn]}
    (tmp_path / "transcripts.jsonl").write_text(json.dumps(episode) + "\n")
    transcripts.run(["--run", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "iteration 3, seed 0, prompt 1, sample 2: return 0.5, terminated, success 0" in shown
    assert shown.count("reward 0.5") == 2 and "5  (cut by the length limit)" in shown
    assert "| Go" in shown
    transcripts.run(["--run", str(tmp_path), "--failed"])
    assert capsys.readouterr().out == shown
    with pytest.raises(SystemExit) as stopped:
        transcripts.run(["--run", str(tmp_path), "--iteration", "4"])
    assert stopped.value.code == 2
    assert "iteration=4 left no transcripts" in capsys.readouterr().err
