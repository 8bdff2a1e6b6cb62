"""Conversations piece by piece against the whole one, encoded by `tokenizers`."""

import json
import re
import time

import jax
import numpy as np
import pytest
import tokenizer_files
from tokenizers import Tokenizer

from jaxrl.lm import folders
from jaxrl.text import BpeTokenizer, ByteTokenizer, literal, make_chat
from jaxrl.text.chat_template import template_words
from jaxrl.text.formats import FORMATS, template_of, words_after, words_of
from jaxrl.text.jinja import render
from train import language

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
TEXTS += ["\u3000\x1f\xa0Caf\u00e9\u2009?\x85 \u2029", "\u2003\x1c\t", "\u200bx\u180e"]


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


def opening(template, tokenizer, system=None, names=None):
    return template_words(template, tokenizer, system, names or {}).opening


def test_a_models_template_opens_the_conversation():
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    start = "<|im_start|>user\n"
    helpful = "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    assert opening(CHATML, tokenizer) == (helpful + start,)
    told = opening(CHATML, tokenizer, "Hi.")
    assert told == ("<|im_start|>system\n", "Hi.", "<|im_end|>\n" + start)
    llama = BpeTokenizer.from_file(tokenizer_files.file("llama3"))
    bos = {"bos_token": "<|begin_of_text|>"}
    start = "<|start_header_id|>user<|end_header_id|>\n\n"
    assert opening(LLAMA3, llama, None, bos) == ("<|begin_of_text|>" + start,)
    around = opening(LLAMA3, llama, " a <|eot_id|> b\n", bos)
    assert around[1:] == ("a <|eot_id|> b", "<|eot_id|>" + start)


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
    assert again.chat.words == said.chat.words and "You are helpful." in said.chat.words.opening[0]
    assert again.tokenizer.vocab_size == said.tokenizer.vocab_size
    assert again.words_with("Hi.") == said.words_with("Hi.") != said.chat.words


def test_tokens_keep_to_32_bits_where_64_are_allowed():
    chat = make_chat(BpeTokenizer.from_file(tokenizer_files.file("llama3")))

    def whole(text):
        tokens = chat.first(text, 30)
        return tokens, chat.tokenizer.decode(tokens, 30), chat.response(text, 30)

    with jax.enable_x64(True):
        found = jax.tree.leaves(jax.eval_shape(whole, literal("It is 12", 12)))
    assert {x.dtype.name for x in found} == {"bool", "int32", "uint8"}


OPENING = '<"\U0001f600" {{ x }}\\n\'>'


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_template_written_for_other_libraries_writes_the_forms_conversations(form):
    told = words_of(form, " s ") if form.system else None
    written = template_of(words_after(form, (OPENING,)), told)
    texts = [("user", " a "), ("assistant", "b "), ("user", "c\n")]
    first, second, third = (text.strip() if form.strips else text for _, text in texts)
    spoken = form.user + first + form.reply + second + form.end
    further = form.after_end + form.user + third + form.reply
    assert render(written, [texts, texts[:2]], {}) == [
        OPENING + spoken + further,
        OPENING + spoken,
    ]
    own = [("system", "Hi. "), *texts]
    if told is None:
        with pytest.raises(ValueError, match=r"refuses a conversation: .* no system messages"):
            render(written, [own], {})
    else:
        opening = form.opening + form.system.format("Hi." if form.strips else "Hi. ")
        assert render(written, [own], {}) == [opening + spoken + further]


NAMES = "<|im_start|>user\n<|im_end|><|eot_id|><|start_header_id|><|user|><|end|>"


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("kind", ["qwen2", "llama3"])
def test_a_system_message_is_plain_text_whatever_names_stand_in_it(kind, template, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_files.file(kind).read_text())
    if template:
        about = {"qwen2": CHATML, "llama3": LLAMA3}[kind]
        about = {"chat_template": about, "bos_token": "<|begin_of_text|>"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    said, plain = (folders.chat_tokenizer(tmp_path, system=x) for x in (NAMES, "Hi"))
    control = said.tokenizer.control
    mine, theirs = (
        [token for token in x.chat.first_piece.before if token in control] for x in (said, plain)
    )
    assert mine == theirs
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    text = " ".join(map(str, said.chat.first_piece.before))
    assert " ".join(map(str, library.encode(NAMES, add_special_tokens=False).ids)) in text
    kept = tmp_path / "policy"
    kept.mkdir()
    said.save(kept)
    assert folders.load_chat_tokenizer(kept).chat.first_piece == said.chat.first_piece


BAD_TEMPLATES = [
    ("a\n{% for %}", "line 2: TemplateSyntaxError: Expected an expression"),
    ("{{ a.b.c }}", "line 1: UndefinedError: 'a' is undefined"),
    ("\n{{ messages | unheard_of }}", "line 2: TemplateAssertionError: No filter named"),
    ("{{ messages + 1 }}", "line 1: TypeError"),
    ("{% include '/etc/passwd' %}", "no loader for this environment"),
    ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ("{{ messages.append(1) }}", "SecurityError"),
    ("{{ 'x' * 10**10 }}", "it needs more than 512 MiB of memory"),
    ("{{ 'x' * 10**7 }}", "it writes more than 1048576 characters"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "a macro calls itself for ever"),
    ("{{" + "(" * 4000 + ")" * 4000 + "}}", "nested too deep"),
    ("{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}", "for more"),
    ("{{ raise_exception('no \x1b[31m\nred') }}", r"refuses a conversation: no \x1b[31m red"),
    ("{{ messages }}", "the same words around every text: after"),
    ("", "Say <A> & 'b'.\\t\\n \" out or rewrites it"),
    (CHATML.replace("message.content", "message.content | upper"), "out or rewrites it"),
    (
        CHATML.replace("message.content", "message.content.lstrip()"),
        "comes '\\n <|im_end|>\\n<|im_start|>assistant",
    ),
    (
        CHATML.replace("'\\n' }}\n{%- endfor", "('\\n' if loop.first else '') }}\n{%- endfor"),
        "<|im_end|>\" comes '\\n<|im_start|>assistant\\n\\n \\tsay",
    ),
    (CHATML.replace("<|im_end|>", "END"), "writes 'END\\n<|im_start|>user\\n' after a response"),
]


@pytest.mark.parametrize(("template", "words"), BAD_TEMPLATES, ids=[x for _, x in BAD_TEMPLATES])
def test_a_template_that_cannot_run_is_told_in_a_line_and_not_needed_for_a_form_asked_for(
    template, words, tmp_path
):
    (tmp_path / "tokenizer.json").write_text(tokenizer_files.file("qwen2").read_text())
    file = tmp_path / "chat_template.jinja"
    file.write_text(template)
    started = time.monotonic()
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        folders.chat_tokenizer(tmp_path)
    assert time.monotonic() - started < 15
    assert str(error.value).startswith(f"{file}: ") and str(error.value).isprintable()
    assert len(str(error.value)) < 1000
    asked = folders.chat_tokenizer(tmp_path, "chatml", "Hi.")
    assert asked.chat.words.opening[:2] == ("<|im_start|>system\n", "Hi.")
    assert asked.template is None


OTHER_SYSTEMS = [
    ("message.content", "message.content", None),
    ("messages[0]['content']", "messages[0]['content'] | trim", None),
    ("messages[0]['content']", "messages[0]['content'] | lower", "rewrites them"),
    ("messages[0]['content']", "messages[0]['content'].lstrip()", "same words"),
    ("messages[0]['content']", "messages[0]['content'].strip('\\n')", "same words"),
    ("messages[0]['content']", "messages[0]['content'] | tojson", "same words"),
    ("messages[0]['content']", "'none'", "leaves system messages out"),
]


@pytest.mark.parametrize(("old", "new", "words"), OTHER_SYSTEMS)
def test_a_template_may_take_white_space_off_a_system_message_and_nothing_else(old, new, words):
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    template = CHATML.replace(old, new)
    if words is not None:
        with pytest.raises(ValueError, match=words):
            opening(template, tokenizer, "Hi")
    else:
        told = opening(template, tokenizer, " Hi <|im_end|>\n")
        wanted = "Hi <|im_end|>" if "trim" in new else " Hi <|im_end|>\n"
        assert told == ("<|im_start|>system\n", wanted, "<|im_end|>\n<|im_start|>user\n")


def test_templates_have_what_transformers_gives_them():
    template = """{% generation %}{{ messages[0].content }}{% endgeneration %}
{{- {'b': 'é<&', 'a': 1} | tojson }}{{ [1] | tojson(indent=1) }}
{%- for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}
{{- strftime_now('%d %b %Y') }}{{ bos_token }}{{ tools is none }}{{ unheard_of }}"""
    (text,) = render(template, [[("user", "Hi")]], {"bos_token": "<s>"}, "2026-01-31")
    assert text == 'Hi{"b": "é<&", "a": 1}[\n 1\n]0131 Jan 2026<s>True'
    marked = CHATML.replace(
        "{{- '<|im_start|>' + message", "{% generation %}{{- '<|im_start|>' + message"
    )
    marked = marked.replace("'\\n' }}\n{%- endfor", "'\\n' }}{% endgeneration %}\n{%- endfor")
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    assert "generation" in marked
    assert template_words(marked, tokenizer, "a", {}) == template_words(CHATML, tokenizer, "a", {})


def test_a_template_that_asks_for_the_date_gets_that_of_the_runs_start(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_files.file("qwen2").read_text())
    dated = CHATML.replace("You are helpful.", "' + strftime_now('%Y-%m-%d') + '")
    (tmp_path / "chat_template.jinja").write_text(dated)
    said = folders.chat_tokenizer(tmp_path, date="2025-02-03")
    assert said.chat.words.opening[0].startswith("<|im_start|>system\n2025-02-03<|im_end|>\n")
    said.save(tmp_path)
    assert folders.load_chat_tokenizer(tmp_path).chat.words == said.chat.words
    with pytest.raises(ValueError, match=r"date=tomorrow is no day; try 20\d\d-"):
        language.Options(date="tomorrow")
