"""Conversations piece by piece against the whole one, encoded by `tokenizers`."""

import json
import re

import jax
import numpy as np
import pytest
import tokenizer_files
from tokenizers import Tokenizer

from jaxrl.lm import folders
from jaxrl.text import BpeTokenizer, ByteTokenizer, literal, make_chat
from jaxrl.text.chat import FORMATS, check_template, render, template_of

# Chat templates as the families publish them, what matters here written out anew.
CHATML = """{%- if messages[0]['role'] == 'system' -%}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else -%}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages if message['role'] != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LLAMA3 = """{%- for message in messages %}{{ (bos_token if loop.first else '')
 + '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
 + message['content'] | trim + '<|eot_id|>' }}{% endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"""
TEXTS = ["  Guess, don't ask!\n", "Too low: 12 345\n\n", "x", ""]


def ids(tokens) -> list[int]:
    assert not bool(tokens.cut)
    return np.asarray(tokens.ids)[: int(tokens.length)].tolist()


@pytest.mark.parametrize(
    ("kind", "form"), [("qwen2", "chatml"), ("llama3", "llama3"), ("gpt2", "plain")]
)
def test_pieces_of_a_conversation_are_the_tokens_of_the_whole(kind, form):
    path = tokenizer_files.file(kind)
    oracle = Tokenizer.from_file(str(path))
    chat = make_chat(BpeTokenizer.from_file(path), system="Be brief.\n" if form != "plain" else "")
    kinds = {
        "first": jax.jit(chat.first, static_argnums=1),
        "next": jax.jit(chat.next, static_argnums=1),
    }
    words = FORMATS[form]
    for text in TEXTS:
        said = text.strip() if words.strips else text
        system = "Be brief." if words.strips else "Be brief.\n"
        opening = words.opening + (words.system.format(system) if form != "plain" else "")
        around = {"first": opening, "next": words.after_end}
        for name, piece in kinds.items():
            whole = around[name] + words.user + said + words.reply
            assert ids(piece(literal(text, 40), 120)) == oracle.encode(whole).ids
            assert len(oracle.encode(whole).ids) <= 40 + chat.overhead
    turn = ids(jax.jit(chat.response, static_argnums=1)(literal("It is 5"), 20))
    assert turn == oracle.encode("It is 5" + words.end).ids
    assert turn[-1] == chat.end_of_turn


def test_bytes_are_their_own_tokens_between_special_ones():
    chat = make_chat(ByteTokenizer())
    assert ids(chat.first(literal("ab"), 8)) == [257, 97, 98, 258]
    assert ids(chat.response(literal("ab"), 8)) == [97, 98, 256]


def test_a_models_template_opens_the_conversation_or_is_refused():
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    opening = check_template(tokenizer, "", "", CHATML, {})
    assert opening == "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    assert check_template(tokenizer, "", "Hi.", CHATML, {}) == "<|im_start|>system\nHi.<|im_end|>\n"
    with pytest.raises(
        ValueError, match="chat=chatml is not what the model's chat template writes"
    ):
        check_template(
            tokenizer, "", "", CHATML.replace("'\\n' }}\n{%- endfor", "'' }}\n{%- endfor"), {}
        )
    with pytest.raises(ValueError, match="refuses a conversation: no"):
        check_template(tokenizer, "", "", "{{ raise_exception('no') }}", {})
    llama = BpeTokenizer.from_file(tokenizer_files.file("llama3"))
    bos = {"bos_token": "<|begin_of_text|>"}
    assert check_template(llama, "", "", LLAMA3, bos) == "<|begin_of_text|>"
    assert render("{{ messages|length }}", [("user", "a")], {}) == "1"


def test_an_unfitting_form_is_refused_and_the_fitting_one_found():
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    assert make_chat(tokenizer).end_of_turn == tokenizer.special["<|im_end|>"]
    with pytest.raises(
        ValueError, match=re.escape("chat=llama3 needs the special token <|begin_of")
    ):
        make_chat(tokenizer, "llama3")
    with pytest.raises(ValueError, match="chat=alpaca is not known; try one of plain, chatml"):
        make_chat(tokenizer, "alpaca")
    with pytest.raises(ValueError, match="chat=plain has no system messages"):
        make_chat(ByteTokenizer(), system="Hi")


def test_a_conversation_survives_saving(tmp_path):
    tokenizer = json.loads(tokenizer_files.file("qwen2").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    said = folders.chat_tokenizer(tmp_path)
    kept = tmp_path / "policy"
    kept.mkdir()
    said.save(kept)
    again = folders.load_chat_tokenizer(kept)
    assert again.chat.first_piece == said.chat.first_piece
    assert "You are helpful." in (again.opening or "")
    assert again.tokenizer.vocab_size == said.tokenizer.vocab_size
    assert again.opening_with("Hi.") == said.opening_with("Hi.") != said.opening


def test_tokens_keep_to_32_bits_where_64_are_allowed():
    chat = make_chat(BpeTokenizer.from_file(tokenizer_files.file("llama3")))

    def whole(text):
        tokens = chat.first(text, 30)
        return tokens, chat.tokenizer.decode(tokens, 30), chat.response(text, 30)

    with jax.enable_x64(True):
        found = jax.tree.leaves(jax.eval_shape(whole, literal("It is 12", 12)))
    assert {x.dtype.name for x in found} == {"bool", "int32", "uint8"}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_template_written_for_other_libraries_writes_the_forms_conversations(form):
    own = [("system", "Hi.")] if form.system else []
    texts = [*own, ("user", " a "), ("assistant", "b"), ("user", "c\n")]
    written = render(template_of(form, '<"open">'), texts, {})
    said = [text.strip() if form.strips else text for _, text in texts[-3:]]
    opening = form.opening + form.system.format("Hi.") if own else '<"open">'
    first, second, third = said
    assert written == (
        opening + form.user + first + form.reply + second + form.end + form.after_end
        + form.user + third + form.reply
    )  # fmt: skip
    assert render(template_of(form, '<"open">'), texts[-3:], {}).startswith('<"open">' + form.user)
