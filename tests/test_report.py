"""A page that compares runs: which belong together, what is drawn of them, and what is refused."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from train import report
from train.report_numbers import curve, final, pairs, profile
from train.report_page import page
from train.report_runs import gather, read_run

ALGO = {"learning_rate": 0.01, "hidden": [64, 64], "gamma": 0.99}


def write_run(
    path: Path, scores=None, *, returns=((1.0,), (2.0,)), seed=0, algo=None, unit="steps", **options
) -> Path:
    """A run's folder; `returns` [lines][members], a number where there is one member."""
    path.mkdir(parents=True)
    options = {"env": "CartPole-v1", "env_args": [], "seed": seed, **options}
    options |= {"num_seeds": options.get("num_seeds", 1), "algo": ALGO | (algo or {})}
    config = {"trainer": "ppo", "options": options, "started": f"{seed}", "id": str(path)}
    (path / "config.json").write_text(json.dumps(config))
    lines = []
    for i, one in enumerate(returns, 1):
        told = one[0] if len(one) == 1 else list(one)
        lines.append({"iteration": i, f"env_{unit}": 100 * i, "episode_return": told})
    (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if scores is not None:
        found = {"per_seed": scores, "ci95": [0.0, 9.0], "ci95_over": "episodes"}
        summary = {"final_return": found, f"env_{unit}": 100 * len(returns), "run_s": 1.5}
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def only_group(*paths: Path):
    ((section,), notes) = gather(paths)
    assert len(section.groups) == 1
    return section.groups[0], notes


def test_runs_that_differ_in_the_seed_alone_are_one_group_and_others_are_not(tmp_path):
    runs = [write_run(tmp_path / str(i), [float(i)], seed=i) for i in range(3)]
    runs += [write_run(tmp_path / "other", [50.0], algo={"gamma": 0.9}, log_every=5)]
    runs += [write_run(tmp_path / "grid", [0.5], env="GridWorld-v0", preset="x")]
    (cart, grid), notes = gather(runs)
    assert [cart.env, grid.env, notes] == ["CartPole-v1", "GridWorld-v0", []]
    assert [[m.seed for m in g.members] for g in cart.groups] == [[0], [0, 1, 2]]  # best first
    assert [group.label for group in cart.groups] == ["gamma=0.9", "gamma=0.99"]
    assert cart.differing() == ["algo.gamma"]
    assert grid.groups[0].label == "ppo"


def test_a_member_of_a_sweep_belongs_to_the_runs_with_its_numbers(tmp_path):
    sweep = write_run(
        tmp_path / "sweep", [1.0, 2.0, 30.0, None], num_seeds=2,
        sweep=["algo.learning-rate=0.02,0.01"], returns=[(1.0, 2.0, 3.0, None)] * 2,
    )  # fmt: skip
    alone = write_run(tmp_path / "alone", [40.0], seed=7)
    ((section,), _) = gather([sweep, alone])
    best, other = section.groups
    assert best.label == "learning_rate=0.01" and other.label == "learning_rate=0.02"
    assert [(m.seed, m.index) for m in best.members] == [(0, 2), (1, 3), (7, 0)]
    np.testing.assert_array_equal(best.scores, [30, 40])  # what diverged has none
    assert other.members[1].run.metric("episode_return", 1).tolist() == [2, 2]


def test_fields_of_the_environment_tell_groups_apart_however_they_were_given(tmp_path):
    given = write_run(tmp_path / "a", [1.0], env_args=["gravity=8"])
    swept = write_run(
        tmp_path / "b", [1.0, 2.0], seed=1, sweep=["env.gravity=8.0,9"], returns=[(1.0, 2.0)]
    )
    ((section,), _) = gather([given, swept])
    assert [len(group.members) for group in section.groups] == [1, 2]
    assert section.groups[1].label == "gravity=8"


def test_a_seed_counts_once_and_a_run_is_given_once(tmp_path):
    old = write_run(tmp_path / "old", [1.0])
    new = write_run(tmp_path / "new", [2.0])
    config = json.loads((new / "config.json").read_text())
    (new / "config.json").write_text(json.dumps(config | {"started": "1"}))
    group, (note,) = only_group(old, new)
    assert group.scores.tolist() == [2] and "Seed 0" in note and str(old) in note
    with pytest.raises(ValueError, match="is the same run as"):
        gather([new, tmp_path / "old" / ".." / "new"])


def test_a_run_that_went_on_after_its_summary_has_not_ended(tmp_path):
    run = write_run(tmp_path / "run", [5.0])
    assert read_run(run).summary is not None
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"iteration": 3, "env_steps": 300, "episode_return": 3.0}\n{"iteration": 4, "en'
        )
    group, _ = only_group(run)
    assert group.runs[0].summary is None and final(group)["iqm"] is None
    assert group.runs[0].steps == 300  # of half a line nothing is taken


def test_a_curve_is_the_iqm_of_the_seeds_that_are_known_with_their_interval(tmp_path):
    returns = [[(float(s),), (float(s + i),)] for i, s in enumerate((1, 2, 3, 4, 50))]
    runs = [write_run(tmp_path / str(i), returns=r, seed=i) for i, r in enumerate(returns)]
    runs += [write_run(tmp_path / "early", returns=[(7.0,)], seed=5)]  # killed after a line
    runs += [write_run(tmp_path / "nan", returns=[(None,), (None,)], seed=6)]
    group, _ = only_group(*runs)
    found = curve(group.members, "episode_return")
    assert found is not None and found["x"] == [100, 200] and found["n"] == [6, 5]
    assert found["y"] == [4.0, np.mean([3, 5, 7])]  # of 1 2 3 4 7 50 and of 1 3 5 7 54
    bounds = (found["low"], found["y"], found["high"])
    assert all(low < y < high for low, y, high in zip(*bounds, strict=True))
    assert curve(group.members, "nothing") is None
    alone = curve(group.members[:1], "episode_return")
    assert alone is not None and (alone["low"], alone["n"]) == (None, 1)


def test_a_point_of_a_curve_is_a_mean_of_lines_and_stays_where_there_is_none(tmp_path):
    values = [1.0, 3.0, None, None, 5.0, 7.0, None, None]
    group, _ = only_group(write_run(tmp_path / "run", returns=[(x,) for x in values]))
    found = curve(group.members, "episode_return", points=4)
    assert found is not None and found["x"] == [200, 400, 600, 800]
    assert found["y"] == [2, 2, 6, 6]


def test_what_is_compared_is_what_the_statistics_say(tmp_path):
    good = [write_run(tmp_path / f"a{i}", [s], seed=i) for i, s in enumerate((3.0, 5.0, 9.0))]
    bad = [
        write_run(tmp_path / f"b{i}", [s], seed=i, algo={"gamma": 0.5})
        for i, s in enumerate((3, 4))
    ]
    going = write_run(tmp_path / "c", algo={"gamma": 0.1})
    ((section,), _) = gather([*good, *bad, going])
    compared = pairs(section.groups)
    assert compared.keys() == {(0, 1), (1, 0)}  # what has not ended is not compared
    assert compared[0, 1][0] == pytest.approx(4.5 / 6)
    assert compared[0, 1][0] + compared[1, 0][0] == pytest.approx(1)
    drawn = profile(section.groups)
    assert drawn is not None and drawn["lines"][2] is None
    shares = {y for line in drawn["lines"][:2] for y in line["y"]}
    assert shares == {0, 0.3333, 0.5, 0.6667, 1}
    assert final(section.groups[0])["iqm"] == 5.667
    assert final(only_group(good[0])[0]) == {
        "iqm": 3.0, "mean": 3.0, "low": 0.0, "high": 9.0, "over": "episodes"
    }  # fmt: skip


class Reader(HTMLParser):
    """The elements of a page, and the text of each script."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.scripts, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.words.append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m\u202e"


def test_the_page_needs_nothing_and_obeys_no_name(tmp_path, capsys):
    run = write_run(tmp_path / HOSTILE.replace("/", "_"), [1.0], env=HOSTILE, algo={"x": HOSTILE})
    other = write_run(tmp_path / "other", env=HOSTILE, algo={HOSTILE: "<b>"})
    turn = {"observation": HOSTILE, "response": "<i>", "reward": None, "cut": False}
    episode = {"iteration": 1, "seed": 0, "prompt": 0, "sample": 0, "return": 1.0}
    episode |= {"ended": HOSTILE, "metrics": {}, "turns": [turn]}
    (run / "transcripts.jsonl").write_text(json.dumps(episode) + "\n")
    (other / "transcripts.jsonl").write_text("{}\n")
    (other / "watch.gif").write_bytes(b"GIF89a...")
    out = tmp_path / "report.html"
    report.main(report.Args((run, other), out))
    assert "1 environment, 2 configurations, 2 runs" in capsys.readouterr().out
    text = out.read_text()
    assert "<th>state</th><th>transcripts</th></tr>" in text
    read = Reader(text)
    tags = [tag for tag, _ in read.found]
    assert tags.count("script") == 2 and "b" in tags and "i" not in tags
    assert tags.count("img") == 1 and "\x1b" not in text and "\u202e" not in text
    numbers, script = read.scripts
    (section,) = json.loads(numbers)
    assert "onerror" in section["groups"][0]["label"] and "innerHTML" not in script
    links = [a.get("src") or a.get("href") for _, a in read.found if "src" in a or "href" in a]
    assert links[0].startswith("data:image/gif;base64,") and len(links) == 5
    for link in links[1:]:
        assert re.fullmatch("[A-Za-z0-9%/._~-]+", link)  # beside the page, nowhere else
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)|@import|url\(", text)
    assert any("has no field ended" in words for words in read.words)  # of the other's episodes


def test_a_page_of_many_configurations_stays_small_and_says_what_it_leaves_out(tmp_path):
    values = ",".join(str(i + 1) for i in range(80))
    line = {f"metric_{i}": [0.123456] * 80 for i in range(30)}
    run = write_run(tmp_path / "run", [float(i) for i in range(80)], sweep=[f"algo.gamma={values}"])
    lines = [{"iteration": i, "env_steps": i} | line for i in range(1, 200)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (run / "summary.json").unlink()
    sections, notes = gather([run])
    text = page(sections, notes, tmp_path / "report.html")
    assert len(text) < 3_000_000 and "16 configurations" in text
    assert "<th>state</th></tr>" in text  # no transcripts, no column


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is no folder; give the folder of a run."),
        (lambda path: path.mkdir(), "holds no config.json: give the folder of a run."),
        (lambda path: write_run(path / "inside"), "holds runs and is none; try "),
        (lambda path: write_run(path, returns=()), "has no metrics: metrics.jsonl holds no line"),
        (lambda path: write_run(path, env=3), "options.env=3 must be a text."),
        (lambda path: write_run(path, num_seeds=10**9), "members, its config.json of 1000000000."),
        (lambda path: write_run(path, sweep=["x"]), "sweep=x must be algo.NAME=VALUES"),
        (lambda path: write_run(path, [1.0, 2.0]), "final_return is not of the 1 members"),
        (lambda path: write_run(path, ["a"]), 'summary.json: final_return.per_seed[0]="a" must be'),
    ],
)
def test_what_is_no_run_is_a_line_and_writes_nothing(tmp_path, capsys, make, words):
    make(tmp_path / "run")
    good = write_run(tmp_path / "good", [1.0])
    with pytest.raises(SystemExit) as stop:
        report.run([str(good), str(tmp_path / "run"), "--out", str(tmp_path / "report.html")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert words in said and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("argv", [[], ["--out", "nowhere/x.html", "run"]])
def test_a_report_of_nothing_or_to_nowhere_is_refused(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        report.run(argv)
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_in_a_browser_values_are_told_and_groups_can_be_put_aside(tmp_path):
    """Where playwright and a Chromium are there."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives a browser")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("there is no chromium")
    runs = [write_run(tmp_path / f"a{i}", [1.0 + i], seed=i) for i in range(2)]
    runs += [write_run(tmp_path / "b", [9.0], algo={"gamma": 0.5})]
    out = tmp_path / "report.html"
    report.main(report.Args(tuple(runs), out))
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 400, "height": 800})
        wrong = []
        window.on("console", lambda message: wrong.append(message.text))
        window.on("pageerror", lambda error: wrong.append(str(error)))
        window.goto(out.as_uri())
        chart = window.locator(".chart").first
        chart.locator(".curve").nth(1).wait_for(state="attached")
        chart.locator("svg").focus()
        window.keyboard.press("ArrowLeft")
        assert "100 steps" in chart.inner_text() and "n=2 gamma=0.99" in chart.inner_text()
        assert window.evaluate("document.documentElement.scrollWidth") == 400
        window.locator(".legend button").first.click()
        assert chart.locator(".curve").count() == 1
        window.locator("#theme").click()
        assert window.evaluate("document.documentElement.dataset.theme") == "dark"
        browser.close()
    assert wrong == []
