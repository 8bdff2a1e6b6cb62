"""Games of several players as environments of one: seats, opponents, play against oneself."""

import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
import jaxrl
from envs.bridges.pgx import Pgx
from envs.registry import given
from jaxrl import opponents
from jaxrl.algos import ppo
from jaxrl.check import check_behaviour, check_structure
from jaxrl.policy import load_policy
from jaxrl.program import Member
from jaxrl.spaces import LEGAL
from tests.nim import Nim
from train import arrays
from train import ppo as trainer
from train.resume import files_of, refuse_changes

NIM = Nim()
SMALL = ppo.Config(num_envs=4, num_steps=4, total_steps=64, num_minibatches=2, hidden=(8,))


class Takes(opponents.Random):
    """Takes as many as there are players, and one more if all is left."""

    def __call__(self, obs, key):
        return jnp.where(obs["observation"][7], 1, 0)


@pytest.fixture(scope="module")
def played():
    """(reset, step) of a game against `Takes`, compiled once."""
    env = Pgx(NIM, Takes())
    return jax.jit(env.reset), jax.jit(env.step)


def test_the_learner_has_one_seat_drawn_at_reset_and_the_other_begins_where_it_does_not(played):
    reset, _ = played
    state, ts = jax.vmap(reset)(jax.random.split(jax.random.key(0), 64))
    heap = np.argmax(np.asarray(ts.obs["observation"])[:, :8], 1)
    assert set(heap) == {7, 5}  # 5: the other one took two of the whole heap
    assert np.all(ts.obs["observation"][:, 8]) and 16 < np.sum(heap == 7) < 48
    assert 16 < np.sum(state.seat) < 48
    np.testing.assert_array_equal(state.game.current_player, state.seat)


def test_a_step_has_the_others_answer_in_it_and_the_reward_is_the_learners(played):
    reset, step = played
    keys = iter(jax.random.split(jax.random.key(1), 99))
    state, ts = reset(next(keys))
    while not ts.obs["observation"][7]:  # until it begins
        state, ts = reset(next(keys))
    state, ts = step(state, 1, next(keys))  # 7 - 2, and the other takes 1
    assert np.argmax(ts.obs["observation"][:8]) == 4 and not ts.done and ts.reward == 0
    np.testing.assert_array_equal(ts.obs[LEGAL], [True, True, True])
    lost, ts = step(state, 2, next(keys))  # leaves 1, which the other takes
    assert ts.terminated and ts.reward == -1 and ts.metrics["success"] == 0
    assert np.all(ts.obs[LEGAL]) and ts.obs["observation"][0]
    state, ts = step(state, 0, next(keys))  # leaves 3, the other 2
    state, ts = step(state, 1, next(keys))  # the rest
    assert ts.terminated and ts.reward == 1 and ts.metrics["success"] == 1
    assert not ts.obs["observation"][8], "the learner's view, whose turn it is not"
    assert lost.seat == state.seat


def test_a_game_of_three_that_ends_before_the_learners_turn_begins_again():
    env = Pgx(Nim(heap=2, players=3), opponents.Random())
    reset = jax.jit(jax.vmap(env.reset))
    state, ts = reset(jax.random.split(jax.random.key(0), 256))
    assert not np.any(ts.done) and np.all(ts.obs["observation"][:, -1])
    assert np.all(state.game.left > 0) and set(np.asarray(state.seat)) == {0, 1, 2}


def test_random_play_is_uniform_over_what_is_legal():
    legal = jnp.array([True, False, True])
    keys = jax.random.split(jax.random.key(0), 400)
    seen = np.bincount(jax.vmap(lambda k: opponents.Random()({LEGAL: legal}, k))(keys), minlength=3)
    assert seen[1] == 0 and 160 < seen[0] < 240


def test_the_contract_holds():
    env = Pgx(NIM, opponents.Random())
    with jax.debug_key_reuse(False):
        check_structure(env, 0)
        check_behaviour(env, 0, 10, 2)


def task_of(env, algorithm, cfg=SMALL):
    args = trainer.Args(env=given(env), algo=cfg)
    task = arrays.make_task("ppo", algorithm, args)
    return task, Member(jnp.uint32(0), cfg, env)


def test_against_itself_an_iteration_plays_the_policy_of_its_own_state():
    """Of now, not of the begin: the opponent changes with the learner."""
    seen = []
    spy = SimpleNamespace(**vars(ppo))
    spy.update = lambda state, key, *, cfg, env, axis: seen.append(env.env.env) or (state, {})
    task, member = task_of(Pgx(NIM, opponents.Self()), spy)
    shapes = jax.eval_shape(lambda key: task.init(key, member, axis=None), jax.random.key(0))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    later = state.replace(policy=jax.tree.map(lambda x: x + 1, state.policy))
    for now in (state, later):
        task.update(now, jax.random.key(0), member, axis=None)
        assert not opponents.plays_itself(seen[-1])
        jax.tree.map(np.testing.assert_array_equal, seen[-1].opponent.network, now.policy)
    obs = {"observation": jnp.zeros(9, jnp.bool_).at[1].set(True), LEGAL: jnp.arange(3) < 1}
    assert seen[-1].opponent(obs, jax.random.key(0)) == 0


def test_another_opponent_stays_as_it_is():
    env = Pgx(NIM, opponents.Random())
    assert opponents.against(env, "policy") == env and not opponents.plays_itself(env)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that learned Nim against itself, and its result."""
    folder = tmp_path_factory.mktemp("nim") / "run"
    options = {"num_envs": 64, "num_steps": 8, "total_steps": 100_000, "hidden": (32,)}
    env = Pgx(NIM, opponents.Self())
    result = jaxrl.train("ppo", env=env, run_dir=folder, devices=1, **options)
    return folder, result


def test_self_play_finds_the_winning_moves(run):
    """Leave a multiple of 4: from 7 take 3, from 6 two, from 5 one."""
    policy = load_policy(run[0])
    for heap in (7, 6, 5, 3, 2, 1):
        bits = (jnp.arange(9) == heap).at[8].set(True)
        assert policy({"observation": bits, LEGAL: jnp.arange(3) < heap}) == heap % 4 - 1
    assert run[1].summary["final_return"]["mean"] > 0.7, "against random play"


def test_a_run_is_an_opponent_if_its_spaces_fit(run, tmp_path):
    env = Pgx(NIM)
    policy = opponents.chosen("mine/Nim", str(run[0]), env)
    assert opponents.chosen("mine/Nim", policy, env) is policy
    against = env.replace(opponent=policy)
    assert not jax.jit(against.reset)(jax.random.key(2))[1].done
    with pytest.raises(ValueError, match=r"other spaces.*trained in mine/Nim\.$"):
        opponents.chosen("mine/Nim", run[0], Pgx(Nim(heap=9)))
    with pytest.raises(ValueError, match=r"mine/Nim: opponent=.*holds no policy\.json.*random"):
        opponents.chosen("mine/Nim", tmp_path, env)


def test_a_run_goes_on_against_the_very_opponent_that_it_began_with(run, tmp_path):
    opponent = tmp_path / "opponent"
    shutil.copytree(run[0] / "policy", opponent)
    pairs = "depth=2", f"opponent={opponent}"
    args = trainer.Args(env_args=pairs, resume=tmp_path)
    config = {"files": files_of(args)}
    refuse_changes(config, args, args)
    (opponent / "policy.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^opponent: .*policy\.json is another since"):
        refuse_changes(config, args, args)
    assert trainer.Args(env_args=("opponent=random",)).files() == {}


def test_a_policy_with_a_memory_is_no_opponent():
    cfg = ppo.Config(**(vars(SMALL) | {"network": "gru"}))
    with pytest.raises(ValueError, match="network=gru has a memory"):
        task_of(Pgx(NIM, opponents.Self()), ppo, cfg)


def test_who_plays_the_others_must_be_said_and_only_where_there_are_any():
    choices = r"random \(.*\), self \(.*\) or a run's folder"
    with pytest.raises(ValueError, match=f"pgx/connect_four is a game of several .*{choices}"):
        envs.make("pgx/connect_four")
    with pytest.raises(ValueError, match="pgx/2048 has no field 'opponent'; near: none"):
        envs.make("pgx/2048", opponent="random")
    with pytest.raises(ValueError, match=f"opponent=3 must say who plays the others: {choices}"):
        opponents.chosen("mine/Nim", 3, Pgx(NIM))
    assert envs.spec("pgx/chess").needs == "opponent=random"
    assert envs.spec("pgx/2048").needs == ""
