"""`python docs/site OUT` builds the site from docs/, the docstrings and the registry.

Pages are Markdown that Sphinx renders, warnings as errors; a link that leads nowhere is one. The
output asks nothing of the network. Needs `pip install 'jaxrl[docs]'`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import environments
import jax
import options
import reference
from pages import ORPHAN, ROOT, Pages, side_by_side

DOCS, HERE = ROOT / "docs", Path(__file__).parent
SECTIONS = {  # the order of the navigation; a page of docs/ that is not here comes last
    "Begin": ["choose-an-algorithm", "training", "coming-from", "faq", "notebooks/index"],
    "Environments": ["ids/index", "environments", "suites", "host_worlds", "physics"],
    "Language agents": ["language", "preferences", "tools", "sandbox"],
    "See": ["watch", "play", "report"],
    "Change": ["add", "design", "change-an-algorithm", "networks", "embedding", "devices"],
    "Look up": ["options/index", "reference/index", "results", "decisions/index", "changelog"],
}


def notebook(path: Path) -> str:
    """A notebook as a page: its words, and its code."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        language = "text" if text.startswith(("!", "%")) else "python"
        parts.append(text if cell["cell_type"] == "markdown" else f"~~~{language}\n{text}\n~~~")
    return "\n\n".join(parts) + "\n"


def copied(pages: Pages) -> list[str]:
    """The pages of docs/ as they are, with the links of the site; their names."""
    files = [p for p in sorted(DOCS.rglob("*")) if HERE not in p.parents and p.is_file()]
    for file in files:
        path = str(file.relative_to(ROOT))
        page = pages.where(path)
        if file.suffix == ".md":
            head = "" if file.parent == DOCS else f"{ORPHAN}\n"
            text = pages.translated(path, file.read_text())
            pages.write(page, head + side_by_side(text))
        elif not page.startswith("source/"):
            (pages.out / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, pages.out / page)
    pages.write(
        "changelog.md", pages.translated("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text())
    )
    return [str(p.relative_to(DOCS).with_suffix("")) for p in files if p.suffix == ".md"]


def folder(pages: Pages, name: str, title: str, entries: list[str]) -> None:
    """A page that lists the others of a folder, which are too many for the navigation."""
    files = [pages.out / name / f"{entry}.md" for entry in entries]
    heads = [re.findall(r"^# (.+)$", file.read_text(), re.MULTILINE)[0] for file in files]
    rows = [f"- [{head}]({file.name})" for head, file in zip(heads, files, strict=True)]
    pages.write(f"{name}/index.md", "\n".join([f"# {title}\n", *rows]) + "\n")


def lay_out(out: Path) -> None:
    """Every page of the site as Markdown."""
    pages = Pages(out)
    there = copied(pages)
    environments.write(pages)
    options.write(pages)
    reference.write(pages)
    folder(pages, "decisions", "Decisions", [n[10:] for n in there if n.startswith("decisions/")])
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for file in notebooks:
        path = str(file.relative_to(ROOT))
        pages.write(f"{path}.md", f"{ORPHAN}\n{pages.translated(path, notebook(file))}")
    folder(pages, "notebooks", "Notebooks", [f"{file.name}" for file in notebooks])
    listed = {name for names in SECTIONS.values() for name in names}
    more = [name for name in there if name not in listed and not name.startswith("decisions/")]
    text = pages.translated("README.md", (ROOT / "README.md").read_text())
    for title, names in {**SECTIONS, "More": more}.items():
        names = [name for name in names if (out / f"{name}.md").exists()]
        if names:
            text += (
                f"\n~~~~{{toctree}}\n:hidden:\n:caption: {title}\n\n"
                + "\n".join(names)
                + "\n~~~~\n"
            )
    pages.write("index.md", text)


def main(argv: list[str]) -> int:
    """Sphinx's exit code: 0 only without a warning."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print(__doc__)
        return 2
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["JAXRL_SITE"] = str(HERE)
    jax.config.update("jax_disable_most_optimizations", True)  # programs that run once
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder) / "pages")
        words = ["-W", "--keep-going", "-q", "-E", "-j", "auto", "-c", str(HERE)]
        words += ["-d", f"{folder}/trees", f"{folder}/pages", argv[0]]
        return subprocess.run([sys.executable, "-m", "sphinx", *words]).returncode  # it forks


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
