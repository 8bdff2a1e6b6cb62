"""Conversations with tools against chat templates that tell of them, token by token."""

import json
import random
import re

import jax
import pytest
import tokenizer_files
from quick import jit
from tokenizers import Tokenizer
from tool_talk import played, tokens

from envs.tools.search import Search
from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.text import BpeTokenizer, literal, make_chat, to_str
from jaxrl.text.call_writer import quoted
from jaxrl.text.chat_template import template_words
from jaxrl.text.formats import FORMATS, words_of
from jaxrl.text.jinja import render
from jaxrl.text.tool_forms import FORMS
from jaxrl.text.tools import Parameter, Tool, schemas
from train.tool_worlds import in_world

# What matters here of the templates that the families publish, written out anew.
QWEN = """{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if tools or system %}{{ '<|im_start|>system\\n' + system }}{% endif %}
{%- if tools %}{{- '\\n\\n' if system }}{{- WORDS }}{% for tool in tools %}
{{- '\\n' + tool | tojson }}{% endfor %}{{ FORM }}{% endif %}
{%- if tools or system %}{{ '<|im_end|>\\n' }}{% endif %}
{%- for message in messages if message.role != 'system' %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user' if loop.previtem.role != 'tool' }}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls %}{{ '\\n' if message.content or not loop.first }}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson + '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}{% endfor %}{{ '<|im_start|>assistant\\n' }}"""
LLAMA = """{%- set system = messages[0].content | trim if messages[0].role == 'system' else '' %}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Environment: ipython\\n' if tools is not none }}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' + system }}<|eot_id|>
{%- for message in messages if message.role != 'system' %}
{%- set role = 'ipython' if message.role == 'tool' else message.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}
{%- if loop.first and tools is not none %}{{ WORDS }}{% for tool in tools %}
{{- tool | tojson(indent=4) + '\\n\\n' }}{% endfor %}{% endif %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' }}
{%- elif message.role == 'tool' %}{{ message.content | tojson }}
{%- else %}{{ message.content | trim }}{% endif %}{{ '<|eot_id|>' }}{% endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"""
SILENT = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n'
 + message.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"""
KINDS = {"qwen2": ("chatml", QWEN), "llama3": ("llama3", LLAMA)}
SYSTEM = " Be \u00fcber brief.\n"


def names_of(kind, tools):
    """What the templates above leave open, as a form of ours has it."""
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file(kind))
    words = "".join(make_chat(tokenizer, KINDS[kind][0], tools=tools).words.opening)
    if kind == "qwen2":
        start, end = words.index("# Tools"), words.index("<|im_end|>")
        told = words[start:end]
        before, after = told.split("\n" + "\n".join(tools))
        return {"WORDS": before, "FORM": after}
    before = words[words.rindex("<|end_header_id|>\n\n") :].removeprefix("<|end_header_id|>\n\n")
    return {"WORDS": before[: before.index("{\n    ")], "bos_token": "<|begin_of_text|>"}


TWO = [("search", {"query": "Ann"}), ("find", {"query": "\u00e9", "n": [-4, 0.5, True]})]
STEPS = {
    "qwen2": (["Let me see.", ""], [TWO, [("search", {"query": 'a"\\b'})]]),
    "llama3": (["", ""], [TWO[:1], TWO[1:]]),
}


PLAYED = {}


def played_once(env, kind):
    """The same with the model's own template and with a form of ours."""
    if kind not in PLAYED:
        said, steps = STEPS[kind]
        PLAYED[kind] = env, played(env, said, jax.random.key(0), steps)
    assert PLAYED[kind][0] == env
    return PLAYED[kind][1]


@pytest.mark.parametrize("own", [True, False], ids=["own", "form"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_reads_calls_and_results_as_the_template_writes_them(kind, own):
    env = Search(prompt="instruct", calls=2, turns=4)
    tools = schemas(env.toolbox)
    form, template = KINDS[kind]
    names = names_of(kind, tools)
    path = tokenizer_files.file(kind)
    read = BpeTokenizer.from_file(path)
    found = template_words(template, read, SYSTEM, names, tools=tools) if own else None
    chat = make_chat(read, form, SYSTEM, found, tools)
    kept = (template, names) if own else None
    spoken = folders.ChatTokenizer(chat, form, path.read_text(), kept, tools=tools)
    env, chat = in_world(env, spoken)
    assert isinstance(env, Search)
    assert env.tool_form == chat.words.tools == {"qwen2": "tags", "llama3": "bare"}[kind]
    texts, messages = played_once(env, kind)
    whole = [{"role": "system", "content": SYSTEM}, *messages]
    if kind == "llama3":  # it leaves white space out
        assert '"error: no tool has that name"' in texts[-1]
    (theirs,) = render(template, [whole], names, tools=tools)
    oracle = Tokenizer.from_file(str(path))
    assert tokens(HostChat(spoken), chat, texts) == oracle.encode(theirs).ids


def test_plain_tells_of_tools_before_the_first_question():
    env = Search(prompt="instruct")
    tools = schemas(env.toolbox)
    spoken = folders.chat_tokenizer(None, tools=tools)
    _, chat = in_world(env, spoken)
    words = bytes(x for x in chat.first_piece.before if x < 256).decode()
    assert words.startswith("# Tools\n\nYou may") and tools[0] in words
    assert words.endswith("</tool_call>\n\n") and chat.first_piece.before[0] == 257
    assert chat.next_piece.before == (257,) and chat.words.tools == "tags"


def test_a_run_is_told_of_the_tools_of_another_world(tmp_path):
    before = folders.chat_tokenizer(None)
    before.save(tmp_path)
    tools = schemas(Search().toolbox)
    kept = folders.load_chat_tokenizer(tmp_path)
    assert kept.tools == () and not kept.chat.words.tools
    kept.after(kept.system, tools).save(tmp_path)
    again = folders.load_chat_tokenizer(tmp_path)
    assert again.tools == tools and again.chat.words.tools == "tags"
    assert again.after(None, ()).chat.words == before.chat.words


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama3"])
def test_the_tokens_of_a_long_beginning_do_not_depend_on_what_follows(kind):
    tokenizer = BpeTokenizer.from_file(tokenizer_files.file(kind))
    oracle = Tokenizer.from_file(str(tokenizer_files.file(kind)))
    rng = random.Random(0)
    pieces = ["", " ", "\n\n", "x", "'s", "12", "}", '"', "A", "\u3000", "\u0301", "tool_call>"]
    told = (
        FORMS["tags"].calls([("add", {"a": "it's  fine,\n\n12345"})]) + "}}\n</tools>\n\nFor each, "
    )
    for _ in range(100):
        text = "".join(rng.choices([*pieces, told[: rng.randrange(20, 128)]], k=9))
        text = text.encode()[:128].decode(errors="ignore")
        head = text.encode()[: tokenizer.seam(text)].decode()
        kept = oracle.encode(head).ids
        for following in ("", *pieces):
            assert oracle.encode(text + following).ids[: len(kept)] == kept, (text, following)
    assert tokenizer.seam(told) > 80


def test_a_text_is_quoted_as_json_does_it():
    text = "".join(map(chr, range(130))) + "\u20ac\U0001f600"
    write = jax.jit(quoted)
    assert to_str(write(literal(text[32:], 160))) == json.dumps(text[32:], ensure_ascii=False)
    short = literal(text[:32], 160)
    assert to_str(write(short)) == json.dumps(text[:32], ensure_ascii=False)
    assert to_str(write(literal("", 160))) == '""'
    assert bool(write(literal("\x01" * 160, 160)).cut)


def test_what_does_not_fit_between_quotes_is_told_as_an_error():
    env = Search(prompt="instruct", tool_form="bare")
    state, _ = jit(env.reset)(jax.random.key(0))
    call = literal('{"name": "search", "parameters": {"query": "x"}}', env.response_bytes)
    worse = env.replace()
    object.__setattr__(worse, "use", lambda world, tool, given: (world, literal("\x01" * 60)))
    _, told, count, failed = jit(worse.run)(state.world, call)
    assert to_str(told) == '"error: the result is too long"' and not bool(told.cut)
    assert int(count) == 1 and int(failed) == 0


def test_templates_without_tools_and_with_other_calls_are_refused():
    read = BpeTokenizer.from_file(tokenizer_files.file("qwen2"))
    tools = schemas(Search().toolbox)
    names = names_of("qwen2", tools)
    other = QWEN.replace("<tool_call>\\n", "<call>")
    lost = QWEN.replace("loop.last or loop.nextitem.role != 'tool'", "true")
    for template, words in (
        (SILENT, "the chat template says nothing of tools; try --chat with one of plain, chatml"),
        (other, "writes a call and what it gives as '<call>{"),
        (lost, "the same words around every call of a tool; try --chat"),
        (LLAMA.replace("'one call", "'no call").replace("!= 1", "> 0"), "refuses a conversation"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            template_words(template, read, None, names | {"bos_token": ""}, tools=tools)
    with pytest.raises(ValueError, match="chat=gemma has no tools; try"):
        words_of(FORMATS["gemma"], None, tools)
    bad = schemas([Tool("add", "Ends with <|im_end|>.", (Parameter("a"),))])
    with pytest.raises(ValueError, match=r"of tools has the special token <\|im_end\|>"):
        template_words(QWEN, read, None, names, tools=bad)
    with pytest.raises(ValueError, match=r"of tools has the special token <\|im_end\|>"):
        make_chat(read, "chatml", tools=bad)
