"""The page of a report: HTML with its own style, script and numbers, which reads nothing else."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxrl import files
from jaxrl.printable import printable
from jaxrl.train import transcripts
from jaxrl.train.report_numbers import Pairs, drawn, final, metric_names, pairs
from jaxrl.train.report_runs import ABSENT, Group, Run, Section, shown
from jaxrl.train.run_folder import TRANSCRIPTS

HERE = Path(__file__).parent
MOST_GROUPS = 64  # of a section, the best ones
MOST_EPISODES, MOST_LETTERS = 3, 2000  # of a run's transcripts, and of a text in one
MOST_TALKS = 40  # runs whose transcripts the page itself holds
MOST_PICTURES = 2_000_000  # bytes of all episodes in frames
WATCHED, TALKED = "watch.gif", "watch.html"  # what train.watch leaves in a run's folder


def page(sections: Sequence[Section], notes: Sequence[str], out: Path) -> str:
    """The whole file, which is to lie at `out`: links to the runs' folders are from there."""
    runs = [run for section in sections for run in section.runs]
    count = sum(len(group.members) for section in sections for group in section.groups)
    notes = [*notes]
    for section in sections:
        if (rest := len(section.groups) - MOST_GROUPS) > 0:
            notes.append(f"{section.env}: {rest} configurations with lower returns are not shown.")
            del section.groups[MOST_GROUPS:]
    numbers = [drawn(section, len(sections)) for section in sections]
    for section, one in zip(sections, numbers, strict=True):
        if (shown_ones := len(one["curves"])) < (every := len(metric_names(section))):
            notes.append(f"{section.env}: curves of {shown_ones} of {every} metrics are here.")
    room = Room()
    parts = [_section(i, section, out, room) for i, section in enumerate(sections)]
    script = (HERE / "report.js").read_text(encoding="utf-8")
    trusted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{trusted}'"
    )
    title = ", ".join(section.env for section in sections)
    told = f"{many(count, 'seed')} of {many(len(runs), 'run')}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="python -m train.report">
<title>{text(title)}: report</title>
<style>{(HERE / "report.css").read_text(encoding="utf-8")}</style></head><body>
<header><div><h1>Runs compared</h1><p>{told}</p></div>
<button id="theme" type="button">light / dark</button></header>
<main>
{"".join(f'<p class="note">{text(note)}</p>' for note in notes)}
{"".join(parts)}
{METHOD}
</main>
<script type="application/json" id="numbers">{_json(numbers)}</script>
<script>{script}</script>
</body></html>
"""


METHOD = """<footer><h2>How to read this</h2>
<p>Runs that differ in the seed alone are one configuration. A curve is the interquartile mean
(IQM) over seeds of what training logged; each point is the mean over the lines since the point
before. Bands and intervals are 95 % percentile bootstraps that draw seeds. A final return is of
fresh episodes at the end of a run, so a run that has not ended is in the curves alone. A
performance profile is the share of runs above each return; the probability of improvement is how
likely a run of one configuration is to end above a run of another, a tie counting half
(Agarwal et al. 2021, arXiv:2108.13264). Of fewer than five seeds an interval is too narrow to
rely on.</p></footer>"""


class Room:
    """What the page may still hold of episodes."""

    def __init__(self):
        self.bytes, self.talks = MOST_PICTURES, MOST_TALKS

    def picture(self, run: Run) -> bytes | None:
        """The film in a run's folder, None where there is none or no room for it."""
        file = run.path / WATCHED
        if not file.is_file() or files.check_regular(file) > self.bytes:
            return None
        found = file.read_bytes()
        self.bytes -= len(found)
        return found if found.startswith(b"GIF8") else None


def text(value: Any) -> str:
    """As a part of the page, whatever it holds."""
    return html.escape(printable(str(value)))


def _name(value: Any) -> str:
    """In a table; a long one is broken."""
    return f'<span class="name">{text(value)}</span>'


def _json(value: Any) -> str:
    """For a script element, which `</script>` or `<!--` in a name would end."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def many(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _section(number: int, section: Section, out: Path, room: Room) -> str:
    groups = section.groups
    legend = "".join(_legend(i, group) for i, group in enumerate(groups))
    chances = _improvement(groups, pairs(groups))
    few = len(groups) <= 3  # there is room for them under the final returns
    chart = '<div class="chart" data-kind="{}"></div>'.format
    parts = [
        _card("Learning curve", chart("curve"), wide=True),
        _card("Final return", chart("final") + (chances if few else "")),
        _card("Performance profile", chart("profile")),
        "" if few or not chances else f'<div class="card wide">{chances}</div>',
        _card("Configurations", _configurations(groups), wide=True),
        _card("What differs", _differences(section), wide=True) if len(groups) > 1 else "",
        _pictures(section, room),
        _card("Runs", _runs(section, out), wide=True),
        *(_talk(run, room) for run in section.runs if (run.path / TRANSCRIPTS).is_file()),
    ]
    told = f"{many(len(groups), 'configuration')}, {many(len(section.runs), 'run')}"
    return f"""<section data-number="{number}"><h2>{text(section.env)} <small>{told}</small></h2>
<div class="legend" role="group" aria-label="Configurations that are shown">{legend}</div>
<div class="grid">{"".join(parts)}</div></section>
"""


def _legend(number: int, group: Group) -> str:
    seeds = many(len(group.members), "seed")
    return (
        f'<button type="button" data-group="{number}" aria-pressed="{str(number < 8).lower()}">'
        f"{_badge(number)} <span>{text(group.label)}</span> <small>{seeds}</small></button>"
    )


def _badge(number: int) -> str:
    return f'<b class="badge c{number % 8}">{number + 1}</b>'


def _card(title: str, body: str, *, wide: bool = False) -> str:
    return f'<div class="card{" wide" if wide else ""}"><h3>{title}</h3>{body}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of cells that are HTML already."""
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _configurations(groups: Sequence[Group]) -> str:
    head = ("", "configuration", "seeds", "final return: IQM", "95 % interval", "mean")
    head += ("steps/s", "training", "compiling", "versions", "devices")
    return _table(head, [_configuration(i, group) for i, group in enumerate(groups)])


def _configuration(number: int, group: Group) -> list[str]:
    found, ended = final(group), len(group.scores)
    bounds = "" if found["low"] is None else f"{number_of(found['low'])} to "
    bounds += "" if found["high"] is None else number_of(found["high"])
    bounds += " <small>of episodes</small>" if found["over"] == "episodes" else ""
    seeds = str(len(group.members))
    seeds += f" <small>({ended} ended)</small>" if ended < len(group.members) else ""
    done = [run.summary for run in group.runs if run.summary is not None]
    pace = [s.steps_per_s or s.episodes_per_s for s in done]
    versions = {_versions(run) for run in group.runs}
    devices = {_devices(run) for run in group.runs}
    return [
        _badge(number),
        _name(group.label),
        seeds,
        "not ended" if found["iqm"] is None else f"<strong>{number_of(found['iqm'])}</strong>",
        bounds,
        "" if found["mean"] is None else number_of(found["mean"]),
        _span([p for p in pace if p], "{:,.0f}"),
        _span([s.run_s for s in done if s.run_s is not None], "{:,.1f} s"),
        _span([s.compile_s for s in done if s.compile_s is not None], "{:,.1f} s"),
        "<br>".join(sorted(map(text, versions))),
        "<br>".join(sorted(map(text, devices))),
    ]


def number_of(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _span(values: Sequence[float], form: str) -> str:
    """One value, or the least and the largest."""
    ends = [form.format(x) for x in (min(values), max(values))] if values else []
    return " to ".join(dict.fromkeys(ends))


def _versions(run: Run) -> str:
    packages = run.config.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    code = run.config.get("code")
    code = code if isinstance(code, dict) else {}
    words = [f"{n} {packages[n]}" for n in ("jaxrl", "jax") if n in packages]
    if code.get("commit"):
        words.append(f"{str(code['commit'])[:8]}{'+' if code.get('dirty') else ''}")
    return ", ".join(words) or "unknown"


def _devices(run: Run) -> str:
    layout = run.config.get("layout")
    if isinstance(layout, dict) and "devices" in layout:
        return f"{layout['devices']} x {layout.get('platform')} {layout.get('kind') or ''}".strip()
    devices = run.config.get("devices")
    return f"{len(devices)} x {devices[0]}" if isinstance(devices, list) and devices else "unknown"


def _differences(section: Section) -> str:
    names, groups = section.differing(), section.groups
    cells = [[text(shown(g.options.get(n, ABSENT))) for g in groups] for n in names]
    badges = [_badge(i) for i in range(len(groups))]
    titles = [f"<code>{text(n)}</code>" for n in names]
    trainers = [text(group.trainer) for group in groups]
    if len(set(trainers)) > 1:
        titles, cells = ["trainer", *titles], [trainers, *cells]
    if len(groups) > len(titles):  # the longer side downwards
        columns = [[badges[i], *(row[i] for row in cells)] for i in range(len(groups))]
        return _table(["", *titles], columns)
    return _table(["", *badges], [[t, *row] for t, row in zip(titles, cells, strict=True)])


def _improvement(groups: Sequence[Group], compared: Pairs) -> str:
    """How likely a run of one configuration is above a run of another; "" of a single one."""
    if not compared:
        return ""
    shown_ones = sorted({i for i, _ in compared})
    rows = []
    for i in shown_ones:
        row = [_badge(i), _name(groups[i].label)]
        for j in shown_ones:
            if i == j:
                row.append("")
                continue
            share, (low, high) = compared[i, j]
            strength = f"--share:{round(abs(share - 0.5) * 100)}%"
            kind = "up" if share > 0.5 else "down"
            row.append(
                f'<span class="share {kind}" style="{strength}"><strong>{share:.2f}</strong> '
                f"<small>{low:.2f} to {high:.2f}</small></span>"
            )
        rows.append(row)
    head = ["", "a run of this one", *(f"above {_badge(j)}" for j in shown_ones)]
    return f"<h3>Probability of improvement</h3>{_table(head, rows)}"


def _pictures(section: Section, room: Room) -> str:
    """What train.watch made of the runs' episodes."""
    found = []
    for run in section.runs:
        if (picture := room.picture(run)) is not None:
            data = base64.b64encode(picture).decode()
            found.append(
                f'<figure><img alt="Episodes of {text(run.path.name)}" '
                f'src="data:image/gif;base64,{data}">'
                f"<figcaption>{_badges(section, run)} {text(run.path.name)}</figcaption></figure>"
            )
    body = f'<div class="frames">{"".join(found)}</div>'
    return _card("Episodes", body, wide=True) if found else ""


def _badges(section: Section, run: Run) -> str:
    """Of the configurations that a run has seeds of."""
    where = [i for i, group in enumerate(section.groups) if run in group.runs]
    return " ".join(map(_badge, where[:8]))


def _runs(section: Section, out: Path) -> str:
    rows = []
    for run in section.runs:
        talks = [name for name in (TALKED, TRANSCRIPTS) if (run.path / name).is_file()]
        links = [f'<a href="{_link(run.path / name, out)}">{name}</a>' for name in talks]
        rows.append(
            [
                _badges(section, run),
                f'<a href="{_link(run.path, out)}/">{_name(run.path)}</a>',
                text(run.config.get("started") or "unknown"),
                f"{run.steps:,} {run.unit}",
                "ended" if run.summary is not None else "not ended",
                " ".join(links),
            ]
        )
    head = ("", "folder", "started", "logged", "state", "transcripts")
    columns = len(head) - all(not row[-1] for row in rows)  # the last where there are some
    return _table(head[:columns], [row[:columns] for row in rows])


def _link(path: Path, out: Path) -> str:
    """A relative address, so that a folder of runs can be moved with its report."""
    return html.escape(quote(os.fsencode(os.path.relpath(path, out.parent))))


def _talk(run: Run, room: Room) -> str:
    """The newest episodes of a language agent's run, as a conversation each."""
    room.talks -= 1
    if room.talks < 0:
        return ""
    try:
        episodes = transcripts.read(run.path / TRANSCRIPTS)[-MOST_EPISODES:]
    except ValueError as error:
        return _card(f"Episodes of {text(run.path.name)}", f"<p>{text(error)}</p>", wide=True)
    body = "".join(map(_episode, episodes))
    return _card(f"Last episodes of {text(run.path.name)}", body, wide=True) if body else ""


def _episode(episode: dict[str, Any]) -> str:
    turns = []
    for turn in episode["turns"]:
        reward = "" if turn["reward"] is None else f"<small>reward {turn['reward']:g}</small>"
        turns.append(f'<p class="said env">{_letters(turn["observation"])}</p>')
        turns.append(f'<p class="said agent">{_letters(turn["response"])} {reward}</p>')
    paid = "unknown" if episode["return"] is None else f"{episode['return']:g}"
    title = f"iteration {episode['iteration']}, seed {episode['seed']}: return {paid}, "
    return f"<details><summary>{title}{text(episode['ended'])}</summary>{''.join(turns)}</details>"


def _letters(words: str) -> str:
    return text(words if len(words) <= MOST_LETTERS else f"{words[:MOST_LETTERS]} ...")
