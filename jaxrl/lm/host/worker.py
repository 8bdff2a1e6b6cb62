"""A program of its own in which a user's Python answers, one request after the other.

It imports what it is asked for and nothing of this project, and ends with the pipe to its parent.
"""

import contextlib
import importlib
import inspect
import json
import os
import re
import signal
import sys
import traceback
import types
import typing
from functools import cache
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

GRACE = 5.0  # s beyond the deadline after which it ends itself, should its parent be gone

Reply = tuple[str, Any]  # "ok" with the answer; "error", "import" or "value" with words


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    os.dup2(2, 1)  # what a user's code prints is no answer
    try:
        sys.path[:] = connection.recv()
        while True:
            deadline, request = connection.recv()
            limit(deadline + GRACE)
            reply = answer(*request)
            limit(0.0)
            connection.send(reply)
    except (EOFError, OSError, KeyboardInterrupt):
        return


def limit(seconds: float) -> None:
    """The process ends after so many seconds; 0: it does not."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds)


def answer(kind: str, *parts: Any) -> Reply:
    """The answer to a request, or what went wrong in words; nothing that is raised passes."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return "ok", KINDS[kind](*parts)
    except Refused as refused:
        return refused.args
    except (Exception, SystemExit) as error:
        return "error", words(error)


class Refused(Exception):
    """(kind, words) of what must not go on."""


def words(error: BaseException) -> str:
    """What was raised and where, in one line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    else:
        frames = [f for f in frames if not f.filename.startswith("<")]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:500]}{where}"


@cache
def find(name: str) -> Any:
    """What `module:attribute` names; the working directory comes first while it is imported."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        told = f"module {module_name!r} cannot be imported: {words(error)}"
        raise Refused("import", told) from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(os.getcwd())
    if not hasattr(module, attribute):
        known = [n for n, x in vars(module).items() if callable(x) and not n.startswith("_")]
        there = f"it has {', '.join(known[:8])}" if known else "it defines no functions"
        raise Refused("import", f"module {module_name!r} has no {attribute!r}; {there}")
    return getattr(module, attribute)


def check_function(name: str) -> str:
    """The name of a function that can be called."""
    function = find(name)
    if not callable(function):
        raise Refused("import", f"{name} is a {type(function).__name__}, not a function")
    return getattr(function, "__name__", type(function).__name__)


def rewards(name: str, columns: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """What a reward function gives for these completions: a number, or None, for each."""
    told: dict[str, Any] = {"extra": {}, "metrics": {}}
    given = columns | {
        "trainer_state": SimpleNamespace(**state),
        "log_extra": lambda column, values: told["extra"].update({column: list(values)}),
        "log_metric": lambda metric, value: told["metrics"].update({metric: float(value)}),
    }
    function = find(name)
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        given = {p.name: given[p.name] for p in parameters if p.name in given}
    found = function(**given)
    if inspect.isawaitable(found):
        found = waited(found)
    found, wanted = list(found), len(columns["completions"])
    if len(found) != wanted:
        odd = f"returned {len(found)} rewards for {wanted} completions; give one for each"
        raise Refused("value", odd)
    return told | {"reward": [None if x is None else float(x) for x in found]}


def waited(found: Any) -> Any:
    """What an `async` function gives in the end."""
    import asyncio  # here: it takes as long to import as all else together

    async def awaited() -> Any:
        return await found

    return asyncio.run(awaited())


TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array"}
TYPES |= {dict: "object"}
RESERVED = ("reset", "step", "get_reward", "close")  # methods that are no tools


def schemas(functions: tuple[str, ...], world: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """JSON schemas of functions, and of the public methods of a world that has no `step`."""
    found = {name: find(name) for name in functions}
    if world:
        made = find(world)(**fields)
        if not callable(getattr(made, "reset", None)):
            raise Refused("import", f"{world} has no method reset; give it one")
        if not hasattr(made, "step"):
            found |= {f"{world}.{name}": method for name, method in methods(made).items()}
    named = [schema(name, function) for name, function in found.items()]
    names = [one["function"]["name"] for one in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise Refused("import", f"there are two tools of the name {twice}; rename one")
    return named


def methods(made: Any) -> dict[str, Any]:
    """The public methods of a world: its tools."""
    names = [name for name in dir(type(made)) if not name.startswith("_") and name not in RESERVED]
    return {name: getattr(made, name) for name in names if callable(getattr(made, name))}


def schema(name: str, function: Any) -> dict[str, Any]:
    """Of a typed function with a Google docstring; Refused where a parameter has no type."""
    text = inspect.getdoc(function) or ""
    says, told = text.partition("\n\n")[0].replace("\n", " ").strip(), described(text)
    if not says:
        raise Refused("import", f"tool {name} has no docstring; say in one line what it does")
    hints = typing.get_type_hints(function)
    properties, required = {}, []
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise Refused("import", f"tool {name}: {p} cannot be told to a model; name each one")
        kind, words = told.get(p.name, ("", ""))
        kind = hints.get(p.name, BY_NAME.get(kind))
        if kind is None:
            raise Refused(
                "import", f"tool {name}: parameter {p.name} has no type; try {p.name}: str"
            )
        properties[p.name] = typed(name, p.name, kind) | ({"description": words} if words else {})
        required += [p.name] if p.default is p.empty else []
    parameters = {"type": "object", "properties": properties, "required": required}
    own = {"name": function.__name__, "description": says, "parameters": parameters}
    return {"type": "function", "function": own}


BY_NAME = {kind.__name__: kind for kind in TYPES}


def described(docstring: str) -> dict[str, tuple[str, str]]:
    """parameter -> (type, words) of a docstring's `Args:`."""
    _, _, section = docstring.partition("Args:\n")
    section = re.split(r"\n\s*(?:Returns|Raises|Yields|Examples?):", section)[0]
    found = re.findall(r"^\s*(\w+)(?:\s*\(([^)]*)\))?:\s*(.*)$", section, re.MULTILINE)
    return {name: (kind.split(",")[0].strip(), words.strip()) for name, kind, words in found}


def typed(tool: str, name: str, kind: Any) -> dict[str, Any]:
    """A type as JSON schema has it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return {"type": TYPES.get(type(inner[0]), "string"), "enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        some = [x for x in inner if x is not type(None)]
        if len(some) == 1:
            return typed(tool, name, some[0]) | {"nullable": True}
    if origin is list and inner:
        return {"type": "array", "items": typed(tool, name, inner[0])}
    if (origin or kind) in TYPES:
        return {"type": TYPES[origin or kind]}
    raise Refused(
        "import",
        f"tool {tool}: parameter {name} is of {kind}, which has no JSON type; try str, int, float, "
        "bool, list or dict",
    )


class Broken(Exception):
    """An episode that cannot be gone on with."""


class Live:
    """A world in the middle of an episode."""

    def __init__(self, world: str, fields: dict[str, Any], start: dict[str, Any]):
        self.made: Any = find(world)(**fields) if world else None
        self.is_game = hasattr(self.made, "step")
        self.turns = 0
        self.told = ""
        if self.is_game:
            given = self.made.reset(seed=start["seed"])
            self.told = given[0] if isinstance(given, tuple) else given
        elif self.made is not None:
            self.told = self.made.reset(**start["row"]) or ""

    def step(self, action: Any, tools: tuple[str, ...], last: bool) -> dict[str, Any]:
        """What follows an action: a text to a game, else a list of calls, none at the end.

        `last`: there is no other turn.
        """
        self.turns += 1
        if self.is_game:
            obs, reward, *ends, info = self.made.step(action)
            ends = [bool(x) for x in ends] + [False] * (2 - len(ends))
            own = {n: float(x) for n, x in info.items() if n == "success"} if info else {}
            told = {"obs": str(obs), "reward": float(reward), "metrics": own}
            return told | {"terminated": ends[0], "truncated": ends[1]}
        if not action:
            return {"obs": [], "reward": self.paid(), "terminated": True, "truncated": False}
        functions = [find(name) for name in tools]
        known = {f.__name__: f for f in functions} | (methods(self.made) if self.made else {})
        texts, errors = [], 0
        for call in action:
            text, failed = called(known, call)
            texts.append(text)
            errors += failed
        metrics = {"tool_errors": errors / len(action)}
        told = {"obs": texts, "reward": self.paid() if last else 0.0, "metrics": metrics}
        return told | {"terminated": False, "truncated": False}

    def paid(self) -> float:
        """What an episode was worth that ends here."""
        pay = getattr(self.made, "get_reward", None)
        return 0.0 if pay is None else float(pay())


def called(known: dict[str, Any], call: dict[str, Any]) -> tuple[str, bool]:
    """(what a call gives as text, whether it failed): the model sees errors and goes on."""
    if "error" in call:
        return f"Error: {call['error']}", True
    if call["name"] not in known:
        return f"Error: there is no tool {call['name']}; there are {', '.join(known)}", True
    try:
        found = known[call["name"]](**call["arguments"])
        if inspect.isawaitable(found):
            found = waited(found)
    except Exception as error:
        return f"Error: {type(error).__name__}: {error}", True
    return found if isinstance(found, str) else json.dumps(found, default=str), False


LIVE: dict[Any, Live] = {}
MOST_LIVE = 4096


def opened(world: str, fields: dict[str, Any], start: dict[str, Any]) -> str:
    """What a world says first, beginning there."""
    return Live(world, fields, start).told


def step(
    episode: Any,
    world: tuple[str, dict[str, Any], tuple[str, ...]],
    start: dict[str, Any],
    past: list[tuple[Any, Any]],
    action: Any,
    last: bool,
) -> dict[str, Any]:
    """What follows an action in an episode whose (action, answer)s were `past`.

    Where it is not at hand, because a process was lost or a run goes on, it is played again.
    """
    name, fields, tools = world
    live = LIVE.pop(episode, None)
    if live is None or live.turns != len(past):
        live = Live(name, fields, start)
        if name and live.told != start["told"]:
            raise Broken("it begins in another way each time; let it depend on seed or row alone")
        live.turns = 0 if name else len(past)  # functions keep nothing: they are not called again
        for before, answered in past if name else ():
            again = live.step(before, tools, False)
            if again != answered:
                raise Broken("it answers in another way each time: it cannot be played again")
    found = live.step(action, tools, last)
    if not (found["terminated"] or found["truncated"]):
        while len(LIVE) >= MOST_LIVE:
            LIVE.pop(next(iter(LIVE)))
        LIVE[episode] = live
    return found


def is_game(world: str) -> bool:
    """Whether a world takes texts by `step`; else its methods are tools."""
    return hasattr(find(world), "step")


KINDS = {
    "function": check_function,
    "is_game": is_game,
    "rewards": rewards,
    "schemas": schemas,
    "open": opened,
    "step": step,
}

if __name__ == "__main__":
    main()
