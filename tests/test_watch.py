"""Films and pages of a run: training again bit for bit, what is in them, and what is refused."""

import itertools
import json
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxrl
from jaxrl import envs
from jaxrl.algos import a2c
from jaxrl.evaluate import evaluate
from jaxrl.policy import load_policy
from jaxrl.program import seed_keys
from jaxrl.train import again, conversations, film, played, table, watch

HOW = {
    "log_every": 1,
    "checkpoint_every": 1e-6,  # after every chunk, and a chunk is an iteration
    "eval_episodes": 2,
    "hidden": (8,),
    "devices": 1,
    "quiet": True,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Five iterations of one environment, each with several episodes."""
    folder = tmp_path_factory.mktemp("runs") / "a2c"
    sizes = {"num_envs": 1, "num_steps": 160, "total_steps": 800, "learning_rate": 1e-2}
    jaxrl.train("a2c", env="GridWorld-v0", run_dir=folder, **sizes, **HOW)
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def episodes(steps, paid, length):
    """(return, length, whether the clock ended it) of each episode that ends in these steps."""
    found = []
    for step in steps:
        paid, length = paid + step.reward, length + 1
        if step.terminated or step.truncated:
            found.append((paid, length, step.truncated and not step.terminated))
            paid, length = 0.0, 0
    return found


def heard(folder, iteration, monkeypatch, member=0, env_index=0):
    """(the iteration, its steps, return and length before, what was said)."""
    said = list[str]()
    monkeypatch.setattr("jaxrl.train.edge.say", said.append)
    it = again.reach(folder, iteration, env_index)
    return it, *again.listen(it, member, env_index), said


def goes_on(steps):
    """Each step that ends no episode leads to the next one's state."""
    between = itertools.pairwise(steps)
    return all(again.same(a.after, b.state) or a.terminated or a.truncated for a, b in between)


def test_a_replay_is_what_training_saw(run, monkeypatch):
    """Rewards and ends are those of the log, and it starts from a checkpoint of three."""
    it, steps, paid, length, said = heard(run, 5, monkeypatch)
    line, ended = lines(run)[4], episodes(steps, paid, length)
    assert len(steps) == 160 and len(ended) == line["episodes"] > 2
    for i, name in enumerate(("episode_return", "episode_length", "truncated_share")):
        assert np.mean([row[i] for row in ended]) == pytest.approx(line[name], rel=1e-6)
    assert goes_on(steps)
    saved = sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    assert it.start == max(x for x in saved if x < 5)
    assert said == [f"from the checkpoint of iteration {it.start} to iteration 5"]
    shown = played.of_training(steps, paid, length, "it")
    assert [one for one in shown.ending if one] == [
        "truncated" if cut else "terminated" for _, _, cut in ended
    ]
    assert len(shown.states) == 161 + len(ended) - bool(shown.ending[-1])


def test_a_run_that_grew_is_played_again_with_the_options_of_then():
    grown = {"iteration": 10, "options": {"algo.total_steps": [1000, 2000]}}
    options = table.trainer("a2c").options(algo=a2c.Config(total_steps=2000))
    for start, iteration, steps in ((0, 10, 1000), (5, 10, 1000), (10, 12, 2000), (11, 12, 2000)):
        then = again._as_then({"resumed": [grown]}, options, start, iteration)
        assert then.algo.total_steps == steps
    with pytest.raises(ValueError, match=r"^iteration=12: the run grew at iteration 10, .* try 10"):
        again._as_then({"resumed": [grown]}, options, 5, 12)


OTHERS = {
    "ppo": ({"env": "Pendulum-v1", "num_seeds": 2, "num_envs": 4, "num_steps": 256}, 1, 3),
    "dqn": ({"env": "CartPole-v1", "num_envs": 2}, 0, 1),
    "sac": ({"env": "Pendulum-v1"}, 0, 0),
    "grpo_arrays": ({"env": "CartPole-v1"}, 0, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_algorithm_can_be_heard(name, tmp_path, monkeypatch):
    """No word of other bits: the state and the metrics after it are those of the plain program."""
    options, member, env_index = OTHERS[name]
    how = {k: x for k, x in HOW.items() if k != "hidden"}
    jaxrl.train(name, run_dir=tmp_path / "run", total_steps=2500, **options, **how)
    _, steps, *_, said = heard(tmp_path / "run", 2, monkeypatch, member, env_index)
    assert len(steps) > 1 and goes_on(steps)
    assert len(said) == 1 and "other last bits" not in said[0]


def test_fresh_episodes_are_those_of_the_evaluation(run):
    """Best, median and worst of them, whole and with the returns that were evaluated."""
    args = watch.Args(run=run, episodes=5, seed=7)
    env, policy = envs.make("GridWorld-v0"), load_policy(run)
    shown = played.episodes(policy, env, args)
    key = seed_keys(jnp.uint32(7))[2]
    wanted = jax.jit(lambda: evaluate(policy.step, env, key, 5, memory=policy.begin()))()
    returns = np.sort(wanted.episode_return)
    assert [one.title for one in shown] == ["best of 5", "median of 5", "worst of 5"]
    assert [one.episode_return[-1] for one in shown] == [returns[4], returns[2], returns[0]]
    for one in shown:
        assert one.ending[-1] in ("terminated", "truncated") and not any(one.ending[:-1])
        assert len(one.states) == one.episode_length[-1] + 1
        assert one.states[0].inner == 0  # they begin at S


def panel(count, size, title="best"):
    def draw(index):
        return (np.full((*size, 3), 40 * i, np.uint8) for i in index)

    numbers = list(range(count))
    return film.Panel(title, draw, [float(x) for x in numbers], numbers, [""] * count)


def test_a_film_has_every_picture_and_holds_the_last(tmp_path):
    """Panels side by side, the shorter one waits, wide ones are halved; a file or none."""
    out = tmp_path / "two.gif"
    assert film.write(out, [panel(3, (100, 700)), panel(5, (100, 700))], fps=10) == 5
    with Image.open(out) as image:
        assert image.n_frames == 5
        assert image.size == (2 * 350 + 4, 2 * 32 + 50)
        image.seek(4)
        assert image.info["duration"] == 1500
        last = np.asarray(image.convert("RGB"))
    assert abs(int(last[-5, 5, 0]) - 80) < 8 and abs(int(last[-5, -5, 0]) - 160) < 8
    assert [p.name for p in tmp_path.iterdir()] == ["two.gif"]


def test_a_film_in_mp4(tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg", reason="the extra `video`").read_frames
    film.write(tmp_path / "x.mp4", [panel(4, (101, 201))], fps=10)
    frames = reader(str(tmp_path / "x.mp4"))
    assert next(frames)["size"] == (202, 166)
    assert len(list(frames)) == 4 + 15  # and the last one's second and a half


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"'"


def conversation(**changes):
    turn = {"observation": "What is 2+2?", "response": "4", "reward": 1.0, "cut": False}
    episode = {"turns": [turn | t for t in changes.pop("turns", [{}])]}
    return episode | {"return": 1.0, "metrics": {"success": 1.0}, "ended": "terminated"} | changes


class Reader(HTMLParser):
    """Tags, and the texts of boxes by their class."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.inside = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("div", "section", "pre", "p"):
            self.inside.append(dict(attrs).get("class", tag))

    def handle_endtag(self, tag):
        if tag in ("div", "section", "pre", "p"):
            self.inside.pop()

    def handle_data(self, data):
        for name in self.inside[-2:]:
            self.texts[name] = self.texts.get(name, "") + data


def test_a_page_shows_a_hostile_text_and_obeys_none_of_it():
    turns = [{"observation": HOSTILE, "response": f"<think>{HOSTILE}</think>{HOSTILE}"}]
    episode = conversation(turns=turns, metrics={HOSTILE: None})
    page = Reader(conversations.page(HOSTILE, [(HOSTILE, episode)]))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [a for _, a in page.tags if any(n.startswith("on") or n == "src" for n in a)]
    assert not [a["href"] for _, a in page.tags if not a.get("href", "#").startswith("#")]
    assert page.texts["pre"].count(HOSTILE) == 3


def test_a_page_sets_tools_rewards_and_endings_apart():
    call = '<tool_call>\n{"name": "add"}\n</tool_call>'
    turns = [
        {"response": f"Let me see. {call}", "reward": 0.0},
        {"observation": "<tool_response>\n4\n</tool_response>", "response": "four", "cut": True},
    ]
    episode = conversation(turns=turns, ended="truncated", **{"return": None})
    page = Reader(conversations.page("title", [("worst", episode)]))
    assert page.texts["call"] == 'calls a tool{"name": "add"}'
    assert page.texts["result"] == "the tool answers4"
    assert page.texts["cut"] == "cut by the length limit"
    assert page.texts["reward"] == "reward 0" and page.texts["reward good"] == "reward 1"
    assert page.texts["end truncated"].startswith("truncated: ")
    assert page.texts["sum good"] == "return unknown"
    bare = conversation(turns=[{"response": '{"name": "add"}'}, {"observation": "4"}])
    page = Reader(conversations.page("title", [("worst", bare)]))
    assert (page.texts["call"], page.texts["result"]) == (
        'calls a tool{"name": "add"}',
        "the tool answers4",
    )


REFUSED = {  # options of a run of arrays -> what the line begins with
    ("--iteration", "6"): "error: iteration=6 must lie in [1, 5], which ",
    ("--iteration", "0"): "error: iteration=0 must lie in [1, 5], which ",
    ("--iteration", "2", "--env-index", "1"): "error: env_index=1 must lie in [0, 0]; try 0.",
    ("--iteration", "2", "--greedy"): "error: greedy=True is not how training played; ",
    ("--env-index", "1"): "error: env_index=1 is of a training iteration; give --iteration.",
    ("--seed-index", "1"): "error: seed_index=1 must lie in [0, 0]; try 0.",
    ("--out", "x.avi"): "error: out=x.avi must end in .gif or .mp4; try watch.gif.",
    ("--episodes", "0"): "error: episodes=0 must ",
    ("--out", "no/x.gif"): "error: out=no/x.gif lies in no folder; make that first.",
}


def refusal(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        watch.run([str(x) for x in argv])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("options", REFUSED)
def test_a_wrong_option_is_one_line(options, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(["--run", run, *options], capsys).startswith(REFUSED[options])
    assert not [*tmp_path.iterdir()]


def test_a_folder_without_what_is_to_be_seen_is_one_line(run, capsys, tmp_path):
    assert "holds no config.json: give the folder of a run." in refusal(["--run", tmp_path], capsys)
    config = json.loads((run / "config.json").read_text())
    other = tmp_path / "config.json"
    other.write_text(json.dumps(config))
    assert "holds no policy.json: give a finished run's" in refusal(["--run", tmp_path], capsys)
    said = refusal(["--run", tmp_path, "--iteration", "1"], capsys)
    assert "has had none yet; wait for its first line" in said
    for id, line in (
        ("gymnax/Catch-bsuite", "error: Catch-bsuite draws no pictures; "),
        ("gymnasium/CartPole-v1", "error: env=gymnasium/CartPole-v1 is stepped by Python, "),
    ):
        config["options"]["env"] = id
        other.write_text(json.dumps(config))
        assert refusal(["--run", tmp_path], capsys).startswith(line)
    config["trainer"] = "mine"
    other.write_text(json.dumps(config))
    assert "trainer=mine is none of ppo, " in refusal(["--run", tmp_path], capsys)
