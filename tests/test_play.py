"""The page of train.play: its calls, its sessions, who may ask, and what is refused in a line."""

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import envs
from jaxrl.env import Environment, timestep
from jaxrl.spaces import Discrete
from jaxrl.train import play
from jaxrl.train.playing import session, values
from jaxrl.train.playing.world import Worlds, make_world

PLAY = {"reason": "pip install 'jaxrl[play]'", "exc_type": ImportError}
server = pytest.importorskip("jaxrl.train.playing.server", **PLAY)
UP, RIGHT, DOWN, LEFT = range(4)
SHORTEST = (RIGHT, RIGHT, RIGHT, DOWN, DOWN, DOWN)


@pytest.fixture(scope="module")
def serving():
    with server.Server(Worlds(make_world("GridWorld-v0", {}))) as running:
        yield running


def ask(serving, what, message=None, method="POST", body=None, **headers) -> tuple[int, Any]:
    """(status, answer) of one call, the answer as JSON where it is some."""
    address = urlsplit(serving.address)
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    body = json.dumps(message).encode() if body is None and method == "POST" else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = what if what.startswith("/") else address.path + what
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = answer.getheader("Content-Type", "").startswith("application/json")
    return answer.status, json.loads(text) if is_json else text.decode()


class Game:
    """A session over HTTP, as a tab of a browser has one."""

    def __init__(self, serving, env=""):
        self.serving = serving
        status, self.opened = ask(serving, "open", {"env": env})
        assert status == 200, self.opened
        self.view, self.name = self.opened["view"], self.opened["session"]

    def ask(self, what, **message):
        return ask(self.serving, what, {"session": self.name} | message)

    def __call__(self, what, **message):
        status, self.view = self.ask(what, **message)
        assert status == 200 and "error" not in self.view, self.view
        return self.view

    def step(self, *actions):
        for action in actions:
            self("step", action=action)
        return self.view


def test_the_grid_world_is_stepped_to_its_goal_and_the_flag_that_ended_it_is_explained(serving):
    game = Game(serving)
    world = game.opened["world"]
    assert world["inputs"] == {"kind": "choice", "names": ["up", "right", "down", "left"]}
    assert world["limit"] == 50 and "S . . ." in world["about"]
    assert game.view["frame"].startswith("data:image/png;base64,") and not game.view["end"]
    assert game.view["line"]["call"] == "obs, info = env.reset(seed=0)"
    game.step(*SHORTEST[:-1])
    assert game.view["end"] == "" and game.view["line"]["obs"] == "11"
    view = game.step(DOWN)
    line = view["line"]
    assert line["call"] == "obs, reward, terminated, truncated, info = env.step(2)"
    assert (line["action"], line["obs"], line["reward"], line["t"]) == ("2 down", "15", 1.0, 6)
    assert (line["terminated"], line["truncated"]) == (True, False)
    assert view["end"].startswith("terminated: ") and round(view["return"], 4) == 0.8
    status, answer = game.ask("step", action=UP)
    assert status == 200 and "begin the next one with env.reset()" in answer["error"]
    view = game("reset", seed=None)
    assert (view["episode"], view["return"], view["line"]["obs"]) == (1, 0.0, "0")
    assert view["line"]["call"] == "obs, info = env.reset()"


def test_the_clock_truncates_and_a_goal_on_its_last_step_sets_both_flags():
    worlds = Worlds(make_world("GridWorld-v0", {"max_steps": 6}))
    opened = session.Sessions(worlds).open("")[1]
    opened.reset(0)
    ends = []
    for actions in ([LEFT] * 6, SHORTEST):
        for action in actions:
            view = opened.step(action)
        ends.append((view["line"]["terminated"], view["line"]["truncated"], view["end"][:24]))
        opened.reset()
    assert ends[0] == (False, True, "truncated: The clock end")
    assert ends[1] == (True, True, "terminated and truncated")


def test_undo_goes_back_step_by_step_and_over_an_end_and_a_reset(serving):
    game = Game(serving)
    assert game.ask("undo")[1] == {"error": "There is nothing to go back to."}
    before = game.step(*SHORTEST[:3])
    game.step(*SHORTEST[3:])
    game("reset", seed=7)
    assert game.view["seed"] == 7
    ended = game("undo")
    assert ended["end"].startswith("terminated") and ended["seed"] == 0 and ended["lines"] == 7
    for _ in range(3):
        back = game("undo")
    assert back == before
    assert game.step(LEFT)["line"]["obs"] == "2"


def test_the_calls_of_the_log_give_the_same_numbers_in_gymnasium():
    pytest.importorskip("gymnasium")
    worlds = Worlds(make_world("Pendulum-v1", {"gravity": 9.0, "max_steps": 3}))
    opened = session.Sessions(worlds).open("")[1]
    views = [
        opened.reset(3),
        opened.step([0.5]),
        opened.step([-1.25]),
        opened.step(player="random"),
    ]
    views += [opened.reset(), opened.step([2])]
    known = {"envs": envs, "np": np}
    exec(worlds.first.described()["python"], known)
    for view in views:
        exec(view["line"]["call"], known)
        assert values.brief(known["obs"]) == view["line"]["obs"]
    assert known["reward"] == view["line"]["reward"]
    assert len({view["line"]["obs"] for view in views}) == len(views)


def test_two_tabs_have_games_of_their_own_and_the_one_that_rested_longest_goes_first(
    serving, monkeypatch
):
    monkeypatch.setattr(session, "MOST_SESSIONS", 3)
    first, second = Game(serving), Game(serving)
    first.step(RIGHT, RIGHT)
    assert second.step(DOWN)["line"]["obs"] == "4" and first.view["line"]["obs"] == "2"
    third = Game(serving)
    first.step(RIGHT)
    fourth = Game(serving)
    status, answer = second.ask("step", action=UP)
    assert status == 410 and answer["error"].endswith("load the page again.")
    assert all(game.ask("step", action=RIGHT)[0] == 200 for game in (first, third, fourth))


def test_strangers_other_origins_and_other_names_of_this_machine_are_refused(serving):
    here = urlsplit(serving.address)
    own = f"http://{here.netloc}"
    assert ask(serving, "", method="GET")[0] == 200
    assert ask(serving, "open", {}, Origin=own)[0] == 200
    assert ask(serving, "open", {}, Host=f"localhost:{here.port}")[0] == 200
    for refused in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ):
        status, answer = ask(serving, "open", {}, **refused)
        assert status == 403 and "own page" in answer, refused
    assert ask(serving, "", method="GET", Host=f"evil.example:{here.port}")[0] == 403
    for path in ("/", "/wrong/", "/wrong/play.js", "/wrong/open", "/%C3%A9/"):
        assert ask(serving, path, method="GET")[0] == 404, path
    status, answer = ask(serving, "/wrong/open", {})
    assert status == 404 and "whole address" in answer["error"]
    assert ask(serving, "../../etc/passwd", method="GET")[0] == 404
    assert ask(serving, "open", method="PUT", body=b"")[0] == 405


def test_by_its_number_another_machine_is_let_in_where_the_user_listens_to_all():
    assert server.is_ours("192.168.0.7:8000", "0.0.0.0") and server.is_ours("[::1]:1", "0.0.0.0")
    assert server.is_ours(f"{socket.gethostname()}:8000", "0.0.0.0")
    assert not server.is_ours("192.168.0.7:8000", "127.0.0.1")
    assert not server.is_ours("evil.example", "0.0.0.0") and not server.is_ours("[", "127.0.0.1")


BAD = [
    ("step", {"action": 4}, "action=4 lies outside of Discrete(n=4); try 0."),
    ("step", {"action": -1}, "lies outside"),
    ("step", {"action": 1.5}, "must be of Discrete(n=4); try 0."),
    ("step", {"action": True}, "must be of"),
    ("step", {"action": "up"}, "must be of"),
    ("step", {"action": [[0], [1, 2]]}, "must be of"),
    ("step", {"action": 2**70}, "action=1180591620717411303424"),
    ("step", {}, "action=None must be of"),
    ("step", {"player": "expert"}, "player='expert' is none here; try one of random."),
    ("step", {"player": ["random"]}, "is none here"),
    ("reset", {"seed": -1}, "seed=-1 must be an integer from 0 to 4294967295; try 0."),
    ("reset", {"seed": 1.0}, "seed=1.0 must be"),
    ("reset", {"seed": "1"}, "must be an integer"),
    ("open", {"env": 3}, "env=3 must be an id"),
    ("open", {"env": "GridWrld-v0"}, "near: GridWorld-v0"),
    ("open", {"env": "os:path"}, "names a module; start with"),
    ("open", {"env": "MNISTBandit-misc\n"}, "No environment"),
    ("open", {"env": "dataset"}, "needs data=FILE.jsonl; start with"),
]


@pytest.mark.parametrize(("what", "message", "words"), BAD, ids=str)
def test_what_is_wrong_is_told_in_a_line_and_the_game_goes_on(serving, what, message, words):
    game = Game(serving)
    status, answer = game.ask(what, **message)
    assert status == 200 and words in answer["error"] and "\n" not in answer["error"]
    assert game.step(RIGHT)["line"]["obs"] == "1"


def test_malformed_and_huge_messages_are_refused_and_the_server_lives(serving, capfd):
    game = Game(serving)
    for body, status in (
        (b"", 400),
        (b"[1]", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"session": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"{}", 410),
        (b'{"session": {}}', 410),
        (b" " * (server.MOST_BODY + 1), 413),
    ):
        got, answer = ask(serving, "step", body=body)
        assert (got, "error" in answer) == (status, True), (body[:20], answer)
    assert ask(serving, "nothing", {})[0] == 404
    with socket.create_connection(serving.socket.getsockname()) as line:
        line.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert b" 400 " in line.recv(1000)
    with socket.create_connection(serving.socket.getsockname()) as line:
        line.sendall(b"POST /x/step HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    assert game.step(RIGHT)["line"]["obs"] == "1"
    assert capfd.readouterr().err == ""


class Odd(Environment):
    """Pays what no JSON has."""

    observation_space = action_space = property(lambda self: Discrete(2))

    def reset(self, key):
        return (), timestep(jnp.zeros((), jnp.int32))

    def step(self, state, action, key):
        return (), timestep(action, jnp.nan, metrics={"size": jnp.inf})


class Breaks(Odd):
    """Cannot be compiled."""

    def step(self, state, action, key):
        raise RuntimeError("the plant\nis on fire")


@pytest.fixture
def own(monkeypatch):
    """The environments above by their ids."""
    monkeypatch.setattr(envs.registry, "_specs", dict(envs.registry._specs))
    envs.register("Odd-v0", Odd)
    envs.register("Breaks-v0", Breaks)


def test_numbers_that_are_not_finite_are_shown_as_none(serving, own):
    game = Game(serving, "Odd-v0")
    view = game.step(1)
    assert (view["line"]["reward"], view["return"], view["line"]["info"]) == (
        None,
        None,
        {"size": None},
    )
    assert game.step(1)["line"]["t"] == 2 and view["frame"] is None


def test_an_environment_that_breaks_is_a_line_on_the_page(serving, own, capfd):
    status, answer = ask(serving, "open", {"env": "Breaks-v0"})
    assert status == 500 and answer["error"].startswith("RuntimeError: the plant is on fire")
    assert capfd.readouterr().err.startswith("error: RuntimeError: the plant is on fire")
    Game(serving)


def test_a_port_in_use_names_the_next_free_one_and_a_host_that_is_none_is_told(serving):
    used = serving.socket.getsockname()[1]
    with pytest.raises(ValueError, match=rf"^port={used} cannot be used \(.*\); try --port \d+\.$"):
        server.bind("127.0.0.1", used)
    with pytest.raises(ValueError, match=r"^host=no\.such\.host\.invalid cannot be used"):
        server.bind("no.such.host.invalid", 0)


def test_what_the_command_refuses_is_one_line_and_exit_code_2(capfd, serving):
    port = str(serving.socket.getsockname()[1])
    for argv, words in (
        (["--env", "GridWrld-v0"], "near: GridWorld-v0"),
        (["--env", "gymnasium/CartPole-v1"], "is stepped by Python"),
        (["--env-args", "size=1"], "size=1 must be a number from 2"),
        (["--port", port], f"port={port} cannot be used"),
        (["--port", "70000"], "port=70000 must"),
        (["--host", ""], "host= must be an address; try 127.0.0.1."),
        (["--run", "nowhere"], "run=nowhere is not there; give a folder."),
    ):
        with pytest.raises(SystemExit) as stopped:
            play.run(argv)
        said = capfd.readouterr().err
        assert stopped.value.code == 2 and words in said and said.count("\n") == 1, said
