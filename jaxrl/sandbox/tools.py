"""Tools for language agents: `--tools jaxrl.sandbox.tools:python`."""

from jaxrl.sandbox.tool import default


def python(code: str) -> str:
    """Run a Python program and see what it prints. Nothing is kept from one program to the next.

    Args:
        code: The program.

    Returns:
        What it printed, and its error if it ended with one.
    """
    outcome = default().run(code)
    if outcome.kind == "failure":
        raise RuntimeError(f"the sandbox failed: {outcome.message}")
    error = "" if outcome.ok else f"{outcome.message or outcome.kind}\n"
    return outcome.output + error or "(it printed nothing)"
