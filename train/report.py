"""One page that compares runs: `python -m train.report RUN [RUN ...]` writes report.html.

It is one file that opens from the disk: curves with bands over seeds, final returns, performance
profiles and probabilities of improvement (arXiv:2108.13264), what differs, and the runs. Runs that
differ in the seed alone are one configuration; environments are a part of the page each.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from jaxrl.config import check_fields
from jaxrl.files import write_text
from jaxrl.train import flags
from jaxrl.train.paths import NewFile
from jaxrl.train.report_page import many, page
from jaxrl.train.report_runs import gather


@dataclass(frozen=True)
class Args:
    runs: tyro.conf.Positional[tuple[Path, ...]]  # folders of runs: any trainer's, a sweep's too
    out: NewFile = Path("report.html")  # the page, which may be there already

    def __post_init__(self):
        check_fields(self)
        if not self.runs:
            raise ValueError("runs= must name folders of runs; try runs/NAME.")


def main(args: Args) -> dict[str, Any]:
    """Writes the page; ValueError for a folder that is no run, and then nothing is written."""
    sections, notes = gather(args.runs)
    content = page(sections, notes, args.out)
    write_text(args.out, content)
    for note in notes:
        print(note)
    groups = sum(len(section.groups) for section in sections)
    told = {"environment": len(sections), "configuration": groups, "run": len(args.runs)}
    words = ", ".join(many(count, name) for name, count in told.items())
    print(f"{args.out}: {words}; {len(content.encode()) / 1e6:.2f} MB")
    return told


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])
