"""Chat templates of real models, and of their kinds, against `transformers`."""

import datetime

import numpy as np
import pytest
import real

from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.text.chat_template import template_words
from jaxrl.text.jinja import render
from train import chat_data

KINDS = ("qwen3", "llama3_1", "gemma3", "smollm2")
# What Meta's files for Llama 3.1 and 3.2 write before every conversation.
DATED = """{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set said = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{%- else %}{% set said = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" + said + "<|eot_id|>" }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
TALKS = [
    ("What is 2 + 2?",),
    ("  Is it so?\n\n", "Yes. ", " More:\tx"),
    ("", "", "It's 'fine', isn't it?", "def f(x):\n    return x\n", "\n"),
    ("Caf\u00e9 \u4f60\u597d \u2013 \u201cso\u201d", "\u00fc\u00df", "\U0001f600!"),
]
SYSTEMS = [None, "Be brief.", "  Spaces at ends\n"]
THOUGHT = "<think>\nTwo and two.\n</think>\n\n4"

pytestmark = pytest.mark.real


def spoken(talk, system):
    start = [] if system is None else [("system", system)]
    return [*start, *(("assistant" if i % 2 else "user", x) for i, x in enumerate(talk))]


class Theirs:
    """A real folder's tokenizer as `transformers` has it, and ours."""

    def __init__(self, kind, template=None):
        transformers = pytest.importorskip("transformers")
        self.folder = real.folder(kind)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        if template is not None:
            self.tokenizer.chat_template = template

    def written(self, talk, system, tokenize=False, **how):
        messages = [{"role": role, "content": x} for role, x in spoken(talk, system)]
        how = {"add_generation_prompt": True} | how
        out = self.tokenizer.apply_chat_template(messages, tokenize=tokenize, **how)
        return out["input_ids"] if tokenize else out

    def words(self, system, thinking="", date=""):
        names = {k: v for k, v in self.tokenizer.special_tokens_map.items() if isinstance(v, str)}
        fake = Known(self.tokenizer)
        return template_words(self.tokenizer.chat_template, fake, system, names, date, thinking)


class Known:
    """The special tokens of a library's tokenizer, which is all that a template's words need."""

    def __init__(self, tokenizer):
        added = tokenizer.added_tokens_decoder
        self.special = {token.content: index for index, token in added.items()}
        self.control = frozenset(index for index, token in added.items() if token.special)


@pytest.mark.parametrize("thinking", ["", "on", "off"])
@pytest.mark.parametrize("kind", [*KINDS, "dated"])
def test_what_stands_before_a_response_is_what_the_template_writes(kind, thinking):
    theirs = Theirs("llama3_1", DATED) if kind == "dated" else Theirs(kind)
    if thinking and kind != "qwen3":
        with pytest.raises(ValueError, match=f"thinking={thinking} means nothing to this chat"):
            theirs.words(None, thinking)
        return
    how = {"enable_thinking": thinking == "on"} if thinking else {}
    today = datetime.date.today().isoformat()
    for system in SYSTEMS:
        words = theirs.words(system, thinking, today)
        for talk in TALKS:
            assert words.conversation(talk) == theirs.written(talk, system, **how)
    if kind == "dated":
        (fixed,) = theirs.words(None, date="2024-07-26").opening
        assert "\nToday Date: 26 Jul 2024\n\n<|eot_id|>" in fixed


@pytest.mark.parametrize("thinking", ["", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_before_a_response_and_of_training_rows_are_those_of_the_template(kind, thinking):
    if thinking and kind != "qwen3":
        return
    theirs = Theirs(kind)
    how = {"enable_thinking": False} if thinking else {}
    said = folders.chat_tokenizer(theirs.folder, thinking=thinking)
    host = HostChat(said)
    for system in SYSTEMS:
        for talk in TALKS[: 1 if thinking else None]:  # of earlier turns see below
            whole = [*talk, "It is 5."]
            ours, action = chat_data.conversation(host, spoken(whole, system))
            start = theirs.written(talk, system, tokenize=True, **how)
            assert ours[: len(start)] == start and not action[len(start) - 1]
            assert all(action[len(start) :]) and ours[-1] == said.chat.end_of_turn
            text = "".join(theirs.tokenizer.decode(ours[len(start) : -1]))
            assert text == "It is 5."


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_inside_jit_are_those_of_the_host(kind):
    import jax

    from jaxrl.text import literal

    said = folders.chat_tokenizer(Theirs(kind).folder, system="Be brief.")
    host, chat = HostChat(said), said.chat
    first, following = (jax.jit(x, static_argnums=1) for x in (chat.first, chat.next))
    for talk in TALKS[:3]:
        for i, text in enumerate(talk[::2]):
            piece = chat.next_piece if i else chat.first_piece
            tokens = (following if i else first)(literal(text, 64), 64 + chat.overhead)
            assert np.asarray(tokens.ids)[: int(tokens.length)].tolist() == host.user(piece, text)
            assert not bool(tokens.cut)


def test_qwen3_drops_the_thoughts_of_earlier_turns_which_stay_here():
    theirs = Theirs("qwen3")
    talk = ("2+2?", THOUGHT, "And 3+3?")
    words = theirs.words(None)
    assert words.conversation(talk).replace(THOUGHT, "4") == theirs.written(talk, None)
    # The last turn's thoughts are in both, and where there are none the template writes empty ones.
    host = HostChat(folders.chat_tokenizer(theirs.folder))
    none = HostChat(folders.chat_tokenizer(theirs.folder, thinking="off"))
    for who, response, end in ((host, THOUGHT, ""), (none, "4", ""), (none, "4", "\n")):
        ours, _ = chat_data.conversation(who, spoken(("2+2?", response), None))
        whole = theirs.written(("2+2?", response), None, True, add_generation_prompt=False)
        assert ours + theirs.tokenizer.encode("\n") == whole, end
    with pytest.raises(ValueError, match="where the chat template has written '<think>"):
        none.response(THOUGHT)


def test_the_template_in_a_real_file_runs_in_its_own_process():
    theirs = Theirs("gemma3")
    names = {"bos_token": "<bos>"}
    with pytest.raises(ValueError, match="refuses a conversation: Conversation roles must"):
        render(theirs.tokenizer.chat_template, [[("assistant", "x")]], names)
