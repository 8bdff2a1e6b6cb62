"""Templates of the kinds that models have, on bytes: their words, and their tokens inside jit."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.text import ByteTokenizer, literal, make_chat
from jaxrl.text.chat import make_piece
from jaxrl.text.chat_template import template_words
from jaxrl.text.formats import Words, template_of
from jaxrl.text.jinja import render
from train import chat_data

BYTES = ByteTokenizer()
IN_FIRST_TURN = """{{ start }}{% set said = '' %}
{%- if messages[0].role == 'system' %}{% set said = messages[0].content + '\\n\\n' %}
{%- set messages = messages[1:] %}{% endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}
{%- endif %}
{{- '<|user|>' + said if message.role == 'user' and loop.first else '<|user|>'
    if message.role == 'user' else '<|assistant|>' }}
{{- message.content | trim + '<|end|>\\n' }}{% endfor %}
{{- '<|assistant|>' if add_generation_prompt }}"""
THINKS = """{% for message in messages %}{% if message.role == 'assistant' %}
{{- '<|assistant|>' + message.content.split('</think>')[-1].lstrip('\\n')
    if '</think>' in message.content else '<|assistant|>' + message.content }}
{%- else %}{{ '<|user|>' + message.role[0] + message.content }}{% endif %}{{ '<|end|>\\n' }}
{%- endfor %}<|assistant|>
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}"""
MISTRAL = """{% for message in messages %}{% if message.role == 'user' %}
{{- '<|user|> ' + message.content + ' <|assistant|>' }}{% elif message.role == 'assistant' %}
{{- message.content + '<|end|>' }}{% else %}{{ raise_exception('No system, please') }}{% endif %}
{%- endfor %}"""
TALK = ("  Is it 2?\n", "Yes ", "", "", " x")


def whole(template, system, **values):
    start = [("system", system)] if system is not None else []
    talk = [("assistant" if i % 2 else "user", x) for i, x in enumerate(TALK)]
    return render(template, [[*start, *talk]], values)[0]


@pytest.mark.parametrize("system", [None, " Be brief.\n", "\u00fcber <|end|>"])
@pytest.mark.parametrize("template", [IN_FIRST_TURN, THINKS, MISTRAL])
def test_a_regular_template_needs_no_form_of_ours(template, system):
    names = {"start": "BEGIN "}
    if template == MISTRAL and system is not None:
        with pytest.raises(ValueError, match="refuses a conversation: No system, please"):
            template_words(template, BYTES, system, names)
        return
    words = template_words(template, BYTES, system, names)
    assert words.conversation(TALK) == whole(template, system, **names)
    assert words.end == "<|end|>" and words.strips == (template == IN_FIRST_TURN)
    assert make_chat(BYTES, words=words).end_of_turn == BYTES.special["<|end|>"]


def spelled(tokens) -> str:
    names = {index: name for name, index in BYTES.special.items()}
    ids = np.asarray(tokens.ids)[: int(tokens.length)].tolist()
    raw = b"".join(names[i].encode() if i in names else bytes([i]) for i in ids)
    return raw.decode()


@pytest.mark.parametrize("thinking", ["", "on", "off"])
@pytest.mark.parametrize("template", [IN_FIRST_TURN, THINKS])
def test_tokens_are_those_of_what_a_template_writes(template, thinking):
    if thinking and template == IN_FIRST_TURN:
        with pytest.raises(ValueError, match=f"thinking={thinking} means nothing to this chat"):
            template_words(template, BYTES, None, {}, thinking=thinking)
        return
    words = template_words(template, BYTES, "Be \u00fc.", {"start": ""}, thinking=thinking)
    chat = make_chat(BYTES, words=words)
    ours = [jax.jit(chat.first, static_argnums=1)(literal(TALK[0]), 99)]
    for i, text in enumerate(TALK[1:]):
        say = chat.next if i % 2 else chat.response
        ours.append(jax.jit(say, static_argnums=1)(literal(text, 8), 99))
    assert not any(bool(x.cut) for x in ours)
    theirs = whole(template, "Be \u00fc.", start="", enable_thinking=thinking != "off")
    begun = "<think>\n\n</think>\n\n" if thinking == "off" else ""
    # What begins a response stays in the conversation, where the template drops it later.
    assert words.begun == begun
    assert "".join(map(spelled, ours)) == theirs.removesuffix(begun).replace(
        "<|assistant|>", "<|assistant|>" + begun
    )


def test_thoughts_stay_as_they_were_said_and_are_not_begun_twice():
    chats = {}
    for thinking in ("", "off"):
        words = template_words(THINKS, BYTES, None, {}, thinking=thinking)
        chats[thinking] = HostChat(folders.ChatTokenizer(make_chat(BYTES, words=words), "", None))
    thought = "<think>\nhm\n</think>\n\n2"
    assert bytes(chats[""].response(thought)[:-1]).decode() == thought
    assert chats["off"].response("<think>\n\n</think>\n\n2") == chats["off"].response("2")
    with pytest.raises(ValueError, match=r"has written '<think>.*' already; leave --thinking out"):
        chats["off"].response(thought)
    assert (
        "hm" not in render(THINKS, [[("user", "a"), ("assistant", thought), ("user", "b")]], {})[0]
    )


@pytest.mark.parametrize("system", [None, " Be \u00fc.\n"])
@pytest.mark.parametrize("thinking", ["", "off"])
@pytest.mark.parametrize("template", [IN_FIRST_TURN, THINKS, MISTRAL])
def test_a_template_that_is_written_from_words_is_read_as_these_words(template, thinking, system):
    if (thinking and template != THINKS) or (system is not None and template == MISTRAL):
        return
    names = {"start": "BEGIN "}
    words, told = (
        None if x is not None and template == MISTRAL
        else template_words(template, BYTES, x, names, thinking=thinking)
        for x in (system, " s ")
    )  # fmt: skip
    assert words is not None
    written = template_of(words, told)
    again = template_words(written, BYTES, None, {})
    assert again == replace(words, opening=("".join(words.opening),), drops=False)
    if told is not None:  # which replaces that of the run
        other = template_words(written, BYTES, " Other ", {})
        mine = template_words(template, BYTES, " Other ", names, thinking=thinking)
        assert other == replace(mine, drops=False)


def test_a_template_that_rewrites_thoughts_and_keeps_them_is_refused():
    keeps = THINKS.replace("message.content.split('</think>')[-1].lstrip('\\n')", "OLD")
    assert "OLD" in keeps
    words = template_words(keeps.replace("OLD", "message.content"), BYTES, None, {})
    assert not words.drops and template_words(THINKS, BYTES, None, {}).drops
    rewrites = keeps.replace("OLD", "message.content.replace('think>', 'thought>')")
    with pytest.raises(ValueError, match="the same words around every text: after"):
        template_words(rewrites, BYTES, None, {})


def test_words_may_all_be_empty_but_the_end():
    words = Words(("",), "", "<|end|>", "<|end|>")
    host = HostChat(folders.ChatTokenizer(make_chat(BYTES, words=words), "", None))
    nothing = make_piece(BYTES, ("",), "", host.text)
    assert nothing == host.chat.first_piece == host.chat.next_piece
    assert host.user(nothing, "ab") == [97, 98]


def test_thinking_needs_a_template():
    with pytest.raises(ValueError, match="thinking=off needs a model's own chat template"):
        folders.chat_tokenizer(None, thinking="off")


@pytest.mark.parametrize("thinking", ["", "off"])
def test_rows_whose_earlier_thoughts_a_template_would_drop_are_told_once(
    thinking, tmp_path, capsys
):
    words = template_words(THINKS, BYTES, None, {}, thinking=thinking)
    said = folders.ChatTokenizer(make_chat(BYTES, words=words), "", None)
    rows = [["a", "b"], ["a", "x" if thinking else "<think>x</think>y", "b", "c"]]
    path = tmp_path / "data.jsonl"
    talks = [
        [{"role": ("user", "assistant")[i % 2], "content": x} for i, x in enumerate(row)]
        for row in (*rows, rows[1])
    ]
    path.write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
    chat_data.read(path, said)
    told = capsys.readouterr().err
    assert told.startswith(f"data={path}, line 2: the thoughts of earlier turns stay in what")
    assert len(told.splitlines()) == 1
