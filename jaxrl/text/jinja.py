"""Chat templates of models: run apart, so that none can hang, fill the memory or read a file."""

import datetime
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.printable import printable
from jaxrl.text import jinja_process
from jaxrl.text.tool_forms import Schemas

SECONDS = 20  # by the clock, on a machine that does much else

Message = tuple[str, str] | dict[str, Any]  # (role, content), or whatever else a template takes
Messages = Sequence[Message]  # in order


def render(
    template: str,
    conversations: Sequence[Messages],
    tokens: Mapping[str, str],
    date: str = "",
    tools: Schemas = (),
) -> list[str]:
    """Conversations as a Jinja template writes them, each up to the next response.

    `tokens` are the names that the template uses, such as bos_token; `date` is its "now", by
    default today; of `tools` it may tell. ValueError, in one line, where it fails or refuses.
    """
    request = {
        "template": template,
        "conversations": [list(messages) for messages in conversations],
        "tokens": dict(tokens),
        "date": date or datetime.date.today().isoformat(),
        "tools": [json.loads(tool) for tool in tools] or None,
    }
    command = [sys.executable, "-I", "-S", jinja_process.__file__, *_folders_of_jinja()]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ValueError(_failed(f"it runs for more than {SECONDS} s")) from None
    except OSError as error:
        raise ValueError(_failed(f"{sys.executable} does not start: {error.strerror}")) from None
    return _texts(done)


def _folders_of_jinja() -> list[str]:
    """Where jinja2 and what it needs are; the program looks for it nowhere else."""
    found = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    folders = [str(Path(x.origin).parents[1]) for x in found if x is not None and x.origin]
    if len(folders) < 2:
        raise ImportError("chat templates need jinja2: pip install 'jaxrl[hf]'")
    return list(dict.fromkeys(folders))


def _texts(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    if done.returncode in (-getattr(signal, "SIGPROF", 0), -getattr(signal, "SIGKILL", 0)):
        raise ValueError(_failed(f"it runs for more than {jinja_process.MOST_SECONDS} s"))
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ValueError(_failed(f"exit code {done.returncode} {_line(last)}".strip())) from None
    if "refused" in answer:
        raise ValueError(f"the chat template refuses a conversation: {_line(answer['refused'])}")
    if "error" in answer:
        raise ValueError(_failed(_line(answer["error"])))
    return answer["texts"]


def _failed(reason: str) -> str:
    reason = reason.rstrip(".")
    return f"the chat template cannot be run: {reason}; do without it by --chat FORM, as chatml."


def _line(text: str) -> str:
    return printable(" ".join(text.split()), keep="")
