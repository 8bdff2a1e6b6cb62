"""The public names of the library from its source: signatures, docstrings, fields."""

import ast
import re
from pathlib import Path

from pages import ORPHAN, ROOT, Pages, words

FENCE = "~~~~"
FOLDERS = (
    "jaxrl/algos",
    "jaxrl/networks",
    "jaxrl/check",
    "jaxrl/text",
    "jaxrl/sandbox",
    "jaxrl/host",
)
LEFT_OUT = {"jaxrl/short_names.py", "jaxrl/theirs.py", "jaxrl/printable.py", "jaxrl/py.typed"}


def modules() -> list[Path]:
    """Every module whose names are public: those of jaxrl itself and of its small folders."""
    found = [*(ROOT / "jaxrl").glob("*.py"), ROOT / "envs" / "registry.py"]
    found += [p for folder in FOLDERS for p in (ROOT / folder).glob("*.py")]
    found += [ROOT / "train" / "in_python.py"]
    names = {p: str(p.relative_to(ROOT)) for p in found}
    return sorted(p for p, name in names.items() if name not in LEFT_OUT)


def dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "jaxrl" else ("jaxrl", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def signature(node: ast.FunctionDef) -> str:
    """The parameters as the source has them, without self."""
    args = re.sub(r"^(self|cls)(, )?(/, )?", "", ast.unparse(node.args))
    return f"({args})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def block(kind: str, name: str, body: str, depth: int) -> str:
    fence = FENCE + "~" * (4 - depth)
    return f"{fence}{{py:{kind}}} {name}\n{body}\n{fence}"


def function(node: ast.FunctionDef, name: str, depth: int = 0) -> str:
    kind, shape = ("method" if depth else "function"), signature(node)
    decorators = {ast.unparse(d) for d in node.decorator_list}
    if "property" in decorators:
        kind = "property"
        typed = f"\n:type: {ast.unparse(node.returns)}" if node.returns else ""
        return block(
            kind, name, f"{typed.strip()}\n\n{words(ast.get_docstring(node))}".strip(), depth
        )
    return block(kind, f"{name}{shape}", words(ast.get_docstring(node)), depth)


def is_public(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")


def fields(node: ast.ClassDef, lines: list[str]) -> str:
    """The class's own fields, a line each, with their comments."""
    rows = []
    for x in node.body:
        if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name):
            default = f" = {ast.unparse(x.value)}" if x.value else ""
            comment = lines[(x.end_lineno or 1) - 1][x.end_col_offset or 0 :].partition("#")[2]
            said = f": {words(comment.strip())}" if comment else ""
            rows.append(f"- `{x.target.id}: {ast.unparse(x.annotation)}{default}`{said}")
    return "\n".join(rows)


def class_(node: ast.ClassDef, name: str, lines: list[str]) -> str:
    of = [ast.unparse(x) for x in node.bases]
    parts = [f"Derives from `{', '.join(of)}`." * bool(of), words(ast.get_docstring(node))]
    parts += [fields(node, lines)]
    for x in filter(is_public, node.body):
        if isinstance(x, ast.FunctionDef) and (ast.get_docstring(x) or "property" not in
                                               map(ast.unparse, x.decorator_list)):  # fmt: skip
            parts.append(function(x, x.name, 1))
    return block("class", name, "\n\n".join(p for p in parts if p), 0)


def page(file: Path) -> str:
    """The page of a module; "" where it has no public names."""
    source = file.read_text()
    tree, lines, name = ast.parse(source), source.splitlines(), dotted(file)
    path = file.relative_to(ROOT)
    head = [ORPHAN, f"# {name}", words(ast.get_docstring(tree)), f"Source: [{path}]({path})"]
    body = [f"{FENCE}{{py:module}} {name}\n{FENCE}"]
    for node in filter(is_public, tree.body):
        if isinstance(node, ast.ClassDef):
            body.append(class_(node, node.name, lines))
        else:
            body.append(function(node, node.name))
    if name == "jaxrl":
        body += [exported(tree)]
    return "\n\n".join([*head, *body]) + "\n"


def exported(tree: ast.Module) -> str:
    """What `import jaxrl` gives, with the page of each."""
    rows, shown = [], {dotted(file) for file in modules()}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in shown:
            page = node.module
            rows += [f"- `jaxrl.{x.name}`: [{page}](site:{page}.md)" for x in node.names]
    return "\n".join(sorted(rows))


def write(pages: Pages) -> None:
    """Every page of a module, and reference/index.md."""
    rows = []
    for file in modules():
        text = page(file)
        if "{py:function}" not in text and "{py:class}" not in text and dotted(file) != "jaxrl":
            continue
        name, first = dotted(file), words(ast.get_docstring(ast.parse(file.read_text())))
        rows.append(f"- [{name}]({name}.md): {first.splitlines()[0]}")
        home = f"reference/{name}.md"
        pages.write(home, pages.translated("", text, home))
    text = "# Reference\n\nThe public names of the library, from its docstrings.\n\n"
    pages.write("reference/index.md", text + "\n".join(rows) + "\n")
