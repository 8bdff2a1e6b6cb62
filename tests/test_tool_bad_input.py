"""Tools that cannot be told of or called: one line with a way out, exit code 2, nothing touched."""

import json

import pytest
import tokenizer_files

from envs.tools.search import Search
from jaxrl.algos import grpo
from jaxrl.lm import folders
from jaxrl.lm.learn.lengths import check_tools
from jaxrl.text.tools import schemas
from train import command, loop


@pytest.fixture
def refused(monkeypatch, capfd):
    """Runs a command line that must be refused before anything is traced; what it said."""

    def never(*args, **kwargs):
        raise AssertionError("a program was made")

    monkeypatch.setattr(loop, "make_program", never)

    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            command.run("grpo", [str(word) for word in argv])
        out, err = capfd.readouterr()
        assert (stop.value.code, out) == (2, "")
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return run


SILENT = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n'
 + message.content + '<|im_end|>\\n' }}{% endfor %}{{ '<|im_start|>assistant\\n' }}"""
WORLDS = """
from jaxrl.envs.tools.search import Search
from jaxrl.text.tools import Parameter, Tool

def world(make):
    return type("World", (Search,), {"toolbox": property(lambda self: make())})

ADD = Tool("add", "", (Parameter("a"),))
Typed = world(lambda: (Tool("add", "", (Parameter("a", "array"),)),))
Twice = world(lambda: (ADD, ADD))
Alike = world(lambda: (Tool("add", "", (Parameter("a"), Parameter("a"))),))
Unnamed = world(lambda: (Tool(""),))
Vague = world(lambda: (Tool("add", "", (Parameter(""),)),))
Empty = world(tuple)
"""
IN_WORDS = ("--env-args", "prompt=instruct")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ("--env", "tools/Search", *IN_WORDS, "--tokenizer", "silent"),
            ("silent", "says nothing of tools; try --chat with one of plain, chatml, llama3, or"),
        ),
        (
            ("--env", "tools/Office", *IN_WORDS, "--algo.prompt-tokens", "64"),
            ("prompt_tokens=64 is too short for tools/Office, whose 11 tools take 3", "tokens to "
             "tell of; try --algo.prompt-tokens 3", ", or fewer tools."),
        ),
        (
            ("--env", "tools/Office", *IN_WORDS, "--algo.context", "512"),
            ("context=512 is too short for tools/Office, whose 11 tools take 3", "try --algo.cont"),
        ),
        (("--env", "tools/Search", "--env-args", "tool_form=xml"), ("one of tags, bare",)),
        (("--env", "worlds_bad:Typed"), ("type=array of the parameter 'a'", "try one of string")),
        (("--env", "worlds_bad:Twice"), ("tools=['add', 'add'] has 'add' twice; give each",)),
        (("--env", "worlds_bad:Alike"), ("parameters=['a', 'a'] has 'a' twice; give each",)),
        (("--env", "worlds_bad:Unnamed"), ("name='' of a tool must begin with", "try add.")),
        (("--env", "worlds_bad:Vague"), ("name='' of a parameter must begin with", "try add.")),
        (("--env", "worlds_bad:Empty"), ("tools=() must hold a Tool at least.",)),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_told_or_called_are_refused(
    refused, tmp_path, monkeypatch, argv, words
):
    folder = tmp_path / "silent"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer_files.file("qwen2").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": SILENT}))
    (tmp_path / "worlds_bad.py").write_text(WORLDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    argv = [str(folder) if word == "silent" else word for word in argv]
    said = refused(*argv, "--run-dir", tmp_path / "run")
    for word in words:
        assert word in said
    assert not (tmp_path / "run").exists()


def test_a_model_whose_context_does_not_hold_what_tells_of_tools_is_refused():
    env = Search(prompt="instruct")
    chat = folders.chat_tokenizer(None, tools=schemas(env.toolbox)).chat
    told = chat.first_piece.overhead
    words = f"the model's context of {told} tokens is too short for a, whose 1 tools take {told}"
    with pytest.raises(ValueError, match=words):
        check_tools("a", env, chat, 1, grpo.Config(), told)
    check_tools("a", env, chat, 1, grpo.Config(), told + 1)
