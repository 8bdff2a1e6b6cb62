"""A program of its own that runs a chat template nobody vouches for, with little of everything.

Reads a request as JSON from standard input, writes an answer as JSON. It imports jinja2 from the
folders that its command line names, and nothing of this project.
"""

import contextlib
import datetime
import json
import signal
import sys
import traceback
from typing import Any

MOST_SECONDS = 1  # of a processor's time
MOST_BYTES = 2**29  # of memory, where the system holds programs to it
MOST_CHARACTERS = 2**20  # of all that it writes


class Refused(Exception):
    """What a template says through `raise_exception`."""


def main() -> None:
    request = json.load(sys.stdin)
    sys.path += sys.argv[1:]
    sandbox = environment(datetime.datetime.fromisoformat(request["date"]))
    limit()
    try:
        answer: dict[str, Any] = {"texts": written(sandbox, request)}
    except Refused as error:
        answer = {"refused": str(error)[:500]}
    except MemoryError:
        answer = {"error": f"it needs more than {MOST_BYTES >> 20} MiB of memory"}
    except RecursionError:
        answer = {"error": "it is nested too deep, or a macro calls itself for ever"}
    except Exception as error:
        answer = {"error": reason(error)[:500]}
    json.dump(answer, sys.stdout)


def environment(now: datetime.datetime) -> Any:
    """What `transformers` gives to chat templates: the same names, tags and filters."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} ... {% endgeneration %}: marks what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> str:
            return caller()

    def refuse(message: Any) -> None:
        raise Refused(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        how: dict[str, Any] = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    sandbox.filters["tojson"] = tojson
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = now.strftime
    return sandbox


def limit() -> None:
    """From here on no file is written, and time and memory are bounded."""
    try:
        import resource
    except ImportError:  # Windows: the caller's clock alone
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # the signal ends this program
    for name, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, MOST_BYTES),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
            resource.setrlimit(name, (most, most))


def written(sandbox: Any, request: dict[str, Any]) -> list[str]:
    """Each of the conversations as the template writes it, up to the next response."""
    template = sandbox.from_string(request["template"])
    texts: list[str] = []
    for conversation in request["conversations"]:
        messages = [
            x if isinstance(x, dict) else {"role": x[0], "content": x[1]} for x in conversation
        ]
        values = {"messages": messages, "tools": request["tools"], "documents": None}
        values = request["tokens"] | values
        texts.append(template.render(add_generation_prompt=True, **values))
        if sum(map(len, texts)) > MOST_CHARACTERS:
            raise ValueError(f"it writes more than {MOST_CHARACTERS} characters")
    return texts


def reason(error: Exception) -> str:
    """What went wrong, and in which line of the template."""
    line = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == "<template>" else line
    text = f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
    return text if line is None else f"line {line}: {text}"


if __name__ == "__main__":
    main()
