"""Words of the source as Markdown, and the links of our pages as those of the site."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from jaxrl.train.table import TOOLS, TRAINERS

ROOT = Path(__file__).resolve().parents[2]
ORPHAN = "---\norphan: true\n---"  # before a page that is not in the navigation
SHOWN = 60_000  # characters of a source file
LINK = re.compile(r"`[^`\n]+`|(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".jsonl": "text", ".md": "markdown"}


def words(docstring: str | None) -> str:
    """A docstring as Markdown: marks that mean nothing there are shown as they are."""
    lines = []
    for line in (docstring or "").splitlines():
        parts = re.split(r"(`+[^`]*`+)", line)
        plain = line.startswith("    ") or [re.sub(r"([*_<>\[\]#|~])", r"\\\1", x) for x in parts]
        if plain is not True:
            plain[1::2] = parts[1::2]
        lines.append(line if plain is True else "".join(plain))
    return "\n".join(lines)


def cell(text: object) -> str:
    """A text inside a table."""
    return " ".join(str(text).replace("|", "\\|").split())


def table(head: str, rows: list[tuple]) -> str:
    """A table of Markdown, whose head is "a | b | c"."""
    marks = "|".join("---" for _ in head.split("|"))
    return "\n".join(
        [f"| {head} |", f"|{marks}|", *(f"| {' | '.join(map(cell, r))} |" for r in rows)]
    )


def side_by_side(text: str) -> str:
    """Two named fences, one after the other, in two columns."""
    fence = r"\*\*[^*\n]+\*\*\n\n```\w+\n.*?^```$"
    box = "~~~~~{{container}} one\n{}\n~~~~~\n"
    both = "~~~~~~{{container}} two\n" + box + box + "~~~~~~"
    return re.sub(rf"(?ms)^({fence})\n\n({fence})", lambda x: both.format(x[1], x[2]), text)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`change` of all that stands outside of fences."""
    parts = re.split(r"(?ms)(^(`{3,}|~{3,}).*?^\2[ \t]*$)", text)
    return "".join(
        change(part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 < 2
    )


class Pages:
    """The pages of the site, by their paths there, and what becomes of a link between them."""

    def __init__(self, out: Path):
        self.out = out
        self.moved = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}

    def write(self, page: str, text: str) -> None:
        file = self.out / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("](site:", "]("))  # links of the site, not of the project

    def where(self, path: str) -> str:
        """The page of a file of the project."""
        if path in self.moved:
            return self.moved[path]
        if path.startswith("train/") and Path(path).stem in TRAINERS | TOOLS:
            return f"options/{Path(path).stem}.md"
        if path.startswith("docs/") and path.endswith((".md", ".png", ".gif", ".svg")):
            return path.removeprefix("docs/")
        return f"{path}.md" if path.endswith(".ipynb") else f"source/{path or 'files'}.md"

    def translated(self, path: str, text: str, home: str | None = None) -> str:
        """The text of a file of the project, its links those of the site."""
        here = posixpath.dirname(home or self.where(path))

        def link(found: re.Match) -> str:
            name, target = found.groups()
            if name is None:  # code
                return found[0]
            target, _, anchor = target.partition("#")
            if not target or ":" in target:
                return found[0]
            to = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if not (ROOT / to).exists():
                raise ValueError(f"{path}: the link {target} leads nowhere.")
            page = self.where(to)
            if page.startswith("source/") and not (self.out / page).exists():
                self.write(page, source(to))
            end = f"#{anchor}" if anchor else ""
            return f"{name}({posixpath.relpath(page, here or '.')}{end})"

        return outside_code(text, lambda part: LINK.sub(link, part))


def source(path: str) -> str:
    """A page with a file of the project, or with what a folder holds."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(p.name + "/" * p.is_dir() for p in file.iterdir() if p.name[0] not in "._")
        text, language = "\n".join(names), "text"
    else:
        text, language = file.read_text(), LANGUAGES.get(file.suffix, "text")
    cut = "\n... (cut here)" if len(text) > SHOWN else ""
    fence = "~" * 12
    head = ORPHAN
    if path.startswith("benchmarks/"):  # records, which would come before what they are of
        head = ORPHAN.replace("\n---", "\nnosearch: true\n---")
    return f"{head}\n# {path}\n\n{fence}{language}\n{text[:SHOWN]}{cut}\n{fence}\n"
