"""The environments of others behind our contract, against the suites' own rollouts.

A row of ROWS is one id. What is not installed is skipped: `pip install 'jaxrl[suites]'`.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from envs.bridges import BRIDGES, bridge
from envs.bridges.avals import like, strong
from jaxrl import check
from jaxrl.check import legal
from jaxrl.check.fields import EnvCheckError
from jaxrl.spaces import is_space
from jaxrl.wrappers import TimeLimit

pytestmark = [  # of the suites' own code
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning"),
]
B = 4  # episodes of each id
KEYS = jax.random.split(jax.random.key(3), B)


@dataclass(frozen=True)
class Row:
    """An id, small, and what is known of it."""

    id: str
    steps: int  # of each episode: its time limit
    fields: dict[str, Any] = field(default_factory=dict)
    one_start: bool = False  # every episode begins in the same state
    flaw: str = ""  # of the suite's, which check_env finds

    @property
    def suite(self) -> str:
        return self.id.split("/")[0]

    @property
    def name(self) -> str:
        return self.id.split("/")[1]


# Of a suite's own environment: (reset(key) -> state, obs; step(state, action, key) -> state, obs,
# reward, done), with its own clock.
Own = tuple[Callable[..., Any], Callable[..., Any]]


def brax(row: Row, env: Any) -> Own:
    game = bridge("brax")._game(row.name, *row.fields.items())  # pyright: ignore

    def reset(key):
        state = game.reset(key)
        return state, state.obs

    def step(state, action, key):
        new = game.step(state.replace(info=dict(state.info), metrics=dict(state.metrics)), action)
        return new, new.obs, new.reward, new.done

    return reset, step


def craftax(row: Row, env: Any) -> Own:
    params = env.params

    def step(state, action, key):
        obs, state, reward, done, _ = env.game.step(key, state, action, params)
        return state, obs, reward, done

    return lambda key: env.game.reset(key, params)[::-1], step


def gymnax(row: Row, env: Any) -> Own:
    def step(state, action, key):
        obs, state, reward, terminated, _ = env.game.step_env(key, state, action, env.params)
        return state, obs, reward, terminated | env.game.is_truncated(state, env.params)

    return lambda key: env.game.reset_env(key, env.params)[::-1], step


def jumanji(row: Row, env: Any) -> Own:
    module = importlib.import_module("jumanji")
    game = module.make(row.name, **row.fields)
    clock = {"time_limit": row.steps} if hasattr(game, "time_limit") else {}
    game = module.make(row.name, **row.fields, **clock)
    dims = np.asarray(game.action_spec.maximum) + 1

    def reset(key):
        state, first = game.reset(key)
        return state, shown(first.observation)

    def step(state, action, key):
        if action.shape != game.action_spec.shape:
            action = jnp.stack(jnp.unravel_index(action, tuple(dims)))
        action = action.astype(game.action_spec.dtype)
        state, ts = game.step(state.replace(key=key), action)
        return state, shown(ts.observation), ts.reward.sum(), ts.last()

    def shown(obs):
        if not hasattr(obs, "_asdict") and not hasattr(obs, "__dataclass_fields__"):
            return obs
        names = getattr(obs, "_fields", None) or list(obs.__dataclass_fields__)
        return {n: shown(getattr(obs, n)) for n in names if n != "action_mask"}

    return reset, step


def navix(row: Row, env: Any) -> Own:
    game = importlib.import_module("navix").make(row.name, max_steps=row.steps)

    def reset(key):
        ts = game.reset(key)
        return ts, ts.observation

    def step(ts, action, key):
        # Its `step`, but for the reset that follows an end there.
        ts = game._step(ts.replace(state=ts.state.replace(key=key)), action)
        return ts, ts.observation, ts.reward, ts.is_done()

    return reset, step


def xminigrid(row: Row, env: Any) -> Own:
    game, params = importlib.import_module("xminigrid").make(row.name, max_steps=row.steps)

    def reset(key):
        ts = game.reset(params, key)
        return ts, ts.observation

    def step(ts, action, key):
        ts = game.step(params, ts, action)
        return ts, ts.observation, ts.reward, ts.last()

    return reset, step


OWN = {f.__name__: f for f in (brax, craftax, gymnax, jumanji, navix, xminigrid)}
PACKAGES = {"brax": "brax.envs", "craftax": "craftax.craftax_env"}  # where not the suite's name
TWICE = "uses a key twice"
SLOW = pytest.mark.slow  # those that take long to compile
ROWS = [
    Row("gymnax/Catch-bsuite", 8),
    Row("brax/inverted_pendulum", 40, {"backend": "spring"}),
    Row("jumanji/Game2048-v1", 250),
    Row("jumanji/Snake-v1", 60),
    Row("jumanji/Tetris-v0", 60),
    Row("jumanji/Maze-v0", 30),
    Row("jumanji/MultiCVRP-v0", 60),
    Row("jumanji/RubiksCube-partly-scrambled-v0", 20),
    Row("navix/Navix-Empty-5x5-v0", 250, one_start=True),
    Row("navix/Navix-Dynamic-Obstacles-5x5-Random-v0", 60),
    Row("xminigrid/MiniGrid-Empty-5x5", 250, one_start=True),
    Row("xminigrid/MiniGrid-MemoryS8", 60),
    pytest.param(Row("brax/reacher", 40, {"backend": "spring"}), marks=SLOW),
    pytest.param(Row("jumanji/BinPack-v2", 30), marks=SLOW),
    pytest.param(Row("jumanji/Connector-v3", 30), marks=SLOW),
    pytest.param(Row("jumanji/LevelBasedForaging-v0", 30), marks=SLOW),
    pytest.param(Row("jumanji/SearchAndRescue-v0", 30), marks=SLOW),
    pytest.param(Row("navix/Navix-GoToDoor-5x5-v0", 60, flaw=TWICE), marks=SLOW),
    pytest.param(Row("navix/Navix-KeyCorridorS3R1-v0", 60, flaw=TWICE), marks=SLOW),
    pytest.param(Row("xminigrid/XLand-MiniGrid-R1-9x9", 60), marks=SLOW),
    pytest.param(Row("craftax/Craftax-Classic-Symbolic-v1", 60, flaw=TWICE), marks=SLOW),
    pytest.param(Row("craftax/Craftax-Classic-Pixels-v1", 60, flaw=TWICE), marks=SLOW),
    pytest.param(Row("craftax/Craftax-Symbolic-v1", 30, flaw=TWICE), marks=SLOW),
]


def make(row: Row) -> Any:
    package = PACKAGES.get(row.suite, row.suite)
    if importlib.util.find_spec(package.split(".")[0]) is None:
        pytest.skip(f"pip install 'jaxrl[{row.suite}]'")
    return envs.make(row.id, max_steps=row.steps, **row.fields)


def play(row: Row, env: Any, own: Own, key: jax.Array) -> Any:
    """One episode and on to the limit, beside the suite's own with the same actions and keys."""
    own_reset, own_step = own

    def step(carry, key):
        state, obs, theirs = carry
        action_key, step_key = jax.random.split(key)
        action = legal.random_action(env, obs, action_key)
        new, ts = env.step(state, action, step_key)
        own, *seen = own_step(theirs, action, step_key)
        taken = {"state": state, "action": action, "key": step_key}
        return (new, ts.obs, like(own, theirs)), (taken, (new, ts), seen)

    reset_key, key = jax.random.split(key)
    state, first = env.reset(reset_key)
    theirs, own_first = own_reset(reset_key)
    start = (state, first.obs, strong(theirs))
    steps = jax.lax.scan(step, start, jax.random.split(key, row.steps))[1]
    return (state, first), own_first, steps


@dataclass(frozen=True)
class Played:
    """What `play` returned for B keys, and when each episode ended."""

    env: Any
    start: Any  # (state, TimeStep) [B]
    own_first: Any
    taken: Any  # state, action and key of each step [B, T]
    after: Any  # (state, TimeStep) [B, T]
    own: Any  # obs, reward, done [B, T]

    @property
    def ts(self) -> Any:
        return self.after[1]

    @property
    def end(self) -> np.ndarray:
        """The number of steps of each episode, 1 at least [B]."""
        return np.argmax(self.ts.done, 1) + 1

    @property
    def during(self) -> np.ndarray:
        """bool [B, T]: up to the end."""
        return np.arange(self.ts.done.shape[1]) < self.end[:, None]


@functools.cache
def played(row_id: str) -> tuple[Row, Played]:
    row = next(r for r in ALL if r.id == row_id)
    env = make(row)
    own = OWN[row.suite](row, env)
    run = jit(jax.vmap(lambda key: play(row, env, own, key)))
    start, own_first, (taken, after, own) = run(KEYS)
    start, own_first, after, own = jax.device_get((start, own_first, after, own))
    return row, Played(env, start, own_first, taken, after, own)


ALL: list[Any] = [getattr(row, "values", [row])[0] for row in ROWS]


@pytest.fixture(autouse=True)
def keys_may_be_used_again():
    """The suite's step takes ours, and the same step is taken again."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(params=ROWS, ids=lambda row: row.id)
def row_and_played(request, keys_may_be_used_again):
    return played(request.param.id)


@jit
def step(env: Any, at: dict[str, Any]) -> Any:
    return env.step(at["state"], at["action"], at["key"])


def leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree)


def test_types_stay_and_everything_that_a_trace_shows_is_as_agreed(row_and_played):
    row, played = row_and_played
    if row.flaw:
        with pytest.raises(EnvCheckError, match=row.flaw):  # the last of the checks
            check.check_structure(played.env, 0)
    else:
        check.check_structure(played.env, 0)


def test_equal_to_the_suites_own_rollout_up_to_the_first_end(row_and_played):
    row, played = row_and_played
    first, ts = played.start[1].obs, played.ts
    obs, reward, done = played.own
    if isinstance(first, dict):
        first, shown = ({k: v for k, v in o.items() if k != "legal"} for o in (first, ts.obs))
    else:
        shown = ts.obs
    for ours, theirs in zip(leaves(first), leaves(played.own_first), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(leaves((shown, ts.reward)), leaves((obs, reward)), strict=True):
        mask = played.during
        np.testing.assert_allclose(ours[mask], theirs[mask], rtol=1e-5, atol=1e-5)
    if row.suite == "brax":  # its `done` knows no clock
        done = done.astype(bool) | (np.arange(row.steps) == row.steps - 1)
    np.testing.assert_array_equal(ts.done[played.during], done[played.during])


def test_truncation_is_exactly_at_the_limit_and_not_termination(row_and_played):
    row, played = row_and_played
    terminated, truncated = played.ts.terminated, played.ts.truncated
    assert truncated[:, -1].all() and not truncated[:, :-1].any()
    at_limit = played.end == row.steps
    last = np.take_along_axis(terminated, played.end[:, None] - 1, 1)[:, 0]
    assert (at_limit | last).all()  # an earlier end is one of the task
    assert not at_limit.any() or not last[at_limit].all()  # the clock alone is no such end


def test_both_flags_where_an_episode_ends_on_the_step_of_its_limit(row_and_played):
    row, played = row_and_played
    early = np.flatnonzero(played.end < row.steps)
    if not len(early) or not isinstance(played.env, TimeLimit):
        pytest.skip("no episode ended early, or the clock is the suite's")
    b, t = early[0], played.end[early[0]] - 1
    env = played.env.replace(max_steps=int(t) + 1)
    at = jax.tree.map(lambda x: x[b, t], played.taken)
    _, ts = step(env, at)
    assert ts.terminated and ts.truncated


def test_observations_lie_in_the_space_and_a_legal_action_is_left(row_and_played):
    _, played = row_and_played
    space = played.env.observation_space
    during = jax.tree.map(lambda x: x[played.during], played.ts.obs)
    for obs in (during, played.start[1].obs):
        for part, x in zip(jax.tree.leaves(space, is_leaf=is_space), leaves(obs), strict=True):
            assert x.dtype == part.dtype and x.shape[1:] == part.shape
            assert np.all((part.low <= x) & (x <= part.high))
        for mask in jax.vmap(lambda x: legal.masks(played.env, x))(obs):
            assert mask.any(-1).all()
    assert np.all(np.isfinite(played.ts.reward))


def test_an_old_state_gives_the_same_again_alone_as_among_others(row_and_played):
    _, played = row_and_played
    for b, t in ((0, 0), (1, 2), (0, 0)):
        at = jax.tree.map(lambda x, b=b, t=t: x[b, t], (played.taken, played.after))
        again = step(played.env, at[0])
        for x, y in zip(leaves(again), leaves(at[1]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_episodes_start_differently_and_do_not_end_in_a_start(row_and_played):
    row, played = row_and_played
    starts = [np.concatenate([np.ravel(x[b]) for x in leaves(played.start)]) for b in range(B)]
    differ = [not np.array_equal(starts[0], s) for s in starts[1:]]
    assert any(differ) != row.one_start
    # With the state: a part that is seen of a grid can look as another's did.
    first, ends = ((state, ts.obs) for state, ts in (played.start, played.after))
    for b in range(B):
        last = jax.tree.map(lambda x, b=b: x[b, played.end[b] - 1], ends)
        for other in range(B):
            same = [
                np.array_equal(x, y[other])
                for x, y in zip(leaves(last), leaves(first), strict=True)
            ]
            assert not all(same)


@pytest.mark.slow
@pytest.mark.parametrize("row", [r for r in ALL if not r.flaw], ids=lambda row: row.id)
def test_check_env_finds_nothing(row):
    check.check_env(make(row), num_steps=1000 // 8, verbose=False)


SUITES = {  # module and what in it lists its ids, as the bridge calls them
    "brax": ("brax.envs", lambda m: set(m._envs) - {"fast"}),  # one for its own tests
    "gymnax": ("gymnax", lambda m: set(m.registered_envs)),
    "jumanji": ("jumanji", lambda m: m.registered_environments()),
    "navix": ("navix", lambda m: set(m.registry())),
    "xminigrid": ("xminigrid", lambda m: set(m.registered_environments())),
}


@pytest.mark.parametrize("suite", SUITES)
def test_the_table_lists_what_the_suite_registers(suite):
    name, listed = SUITES[suite]
    pytest.importorskip(name.split(".")[0], reason=f"pip install 'jaxrl[{suite}]'")
    assert listed(importlib.import_module(name)) == set(bridge(suite).ids())


@pytest.mark.parametrize("suite", sorted(set(BRIDGES) & set(OWN) - {"gymnax"}))
def test_a_missing_package_names_what_to_install_and_ids_are_known_without(suite, monkeypatch):
    name = bridge(suite).ids()[0]
    monkeypatch.setitem(sys.modules, PACKAGES.get(suite, suite), None)
    made = {"jumanji": "_own"}.get(suite, "_game")
    getattr(bridge(suite), made).cache_clear()
    with pytest.raises(ImportError, match=rf"pip install 'jaxrl\[{suite}\]'"):
        envs.make(f"{suite}/{name}")
    assert f"{suite}/{name}" in envs.ids()
