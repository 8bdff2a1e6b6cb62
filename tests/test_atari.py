"""Atari games through envpool and through ale-py; what needs neither comes first."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import envs, networks, sgd
from jaxrl.envs.bridges import atari
from jaxrl.host.environment import HostEnvironment, World
from jaxrl.networks import NetworkSpec
from jaxrl.spaces import Box, Discrete
from jaxrl.train import arrays
from jaxrl.train.host import HostPlay

ACTORS = SimpleNamespace(num_processes=1, deadline=60.0, ray=None)
NATURE = "jaxrl.networks.nature:Nature"
IMAGE = Box(0, 255, (36, 36, 2), np.uint8)


def needs(engine: str) -> None:
    module, extra = {"envpool": ("envpool", "envpool"), "ale": ("ale_py", "atari")}[engine]
    pytest.importorskip(module, reason=f"pip install 'jaxrl[{extra}]'")
    if engine == "ale":
        pytest.importorskip("cv2", reason="pip install 'jaxrl[atari]'")


BAD = [
    ("Pog", {}, "No environment 'atari/Pog'; near: .*atari/Pong"),
    ("Pong", {"sticky": 1.0}, r"atari/Pong: sticky=1.0 must lie in \[0, 1\); try 0.25."),
    ("Pong", {"engine": "gym"}, "atari/Pong: engine=gym must be auto, envpool, ale; try auto."),
    ("TicTacToe3D", {"engine": "envpool"}, "engine=envpool does not have this game; try ale."),
    ("Pong", {"max_steps": 0}, "atari/Pong: max_steps=0 must be an integer >= 1 or None"),
]


@pytest.mark.parametrize(("name", "fields", "words"), BAD)
def test_what_a_game_cannot_have_is_told(name, fields, words):
    with pytest.raises(ValueError, match=words):
        envs.make(f"atari/{name}", **fields)


@pytest.mark.parametrize(
    ("engine", "words"),
    [("auto", "ale-py: .*jaxrl.atari"), ("envpool", "envpool: .*jaxrl.envpool")],
)
def test_without_its_package_a_game_names_what_to_install(monkeypatch, engine, words):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"atari/Pong needs {words}"):
        envs.make("atari/Pong", engine=engine)


def test_envpool_plays_where_it_has_the_game(monkeypatch):
    found = {"envpool", "ale_py"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in found else None)
    assert atari._engine("atari/Pong", "auto") == "envpool"
    assert atari._engine("atari/TicTacToe3D", "auto") == "ale"
    found.remove("envpool")
    assert atari._engine("atari/Pong", "auto") == "ale"


def test_actor_and_critic_share_all_but_their_last_layers():
    spec = NetworkSpec(IMAGE, Discrete(3), NATURE, (8,), "relu")
    obs = jax.random.randint(jax.random.key(1), (2, 5, 36, 36, 2), 0, 256).astype(jnp.uint8)

    def looked_at(key):
        network = networks.build(spec, key)
        pi, value = network.distribution_and_value(obs)
        x = jax.nn.relu(network.trunk(obs))
        alone = network.actor(x), network.critic(x)[..., 0]
        apart = network.distribution(obs).logits, network.value(obs)
        return network, (pi.logits, value), alone, apart

    network, both, *others = jax.jit(looked_at)(jax.random.key(0))
    assert both[0].shape == (2, 5, 3) and both[1].shape == (2, 5)
    for other in others:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), both, other)
    convolutions = 8 * 8 * 2 * 32 + 32 + 4 * 4 * 32 * 64 + 64 + 3 * 3 * 64 * 64 + 64
    count = sum(x.size for x in jax.tree.leaves(network))
    assert count == convolutions + 64 * 8 + 8 + 8 * 4 + 4


@pytest.mark.parametrize(
    ("space", "hidden", "words"),
    [(Box(-1.0, 1.0, (4,)), (8,), "needs image observations"), (IMAGE, (), "try 512")],
)
def test_a_shared_tower_needs_images_and_a_layer(space, hidden, words):
    with pytest.raises(ValueError, match=words):
        networks.build(NetworkSpec(space, Discrete(3), NATURE, hidden), jax.random.key(0))


def test_pieces_of_images_are_small():
    image, number = jnp.zeros((256, 84, 84, 4), jnp.uint8), jnp.zeros(256)
    assert sgd.pieces_in_cache((number, image)) == 8
    assert sgd.pieces_in_cache(number) == 1
    assert sgd.pieces_in_cache(jnp.zeros((1024, 10, 10, 4), jnp.bool_)) == 2


def test_images_are_worth_a_second_device():
    screen = HostEnvironment(World("x", Box(0, 255, (84, 84, 4), np.uint8), Discrete(2), print))
    assert arrays.row_weight(screen) == 7
    assert arrays.row_weight(envs.make("CartPole-v1")) == 1


def test_what_plays_in_threads_is_not_sent_to_other_machines():
    world = World("atari/Pong", atari.OBSERVATION, Discrete(2), print, threads=True)
    with pytest.raises(ValueError, match=r"atari/Pong in threads of this one; try .*engine=ale"):
        HostPlay(HostEnvironment(world), None, SimpleNamespace(ray="auto"))  # pyright: ignore


def played(engine, game, num_steps, num_envs=2, **fields):
    """(first observation, [Outcome, ...], actions) of random play."""
    env = envs.make(f"atari/{game}", engine=engine, **fields)
    worlds = env.world.open(num_envs, ACTORS)
    rng = np.random.default_rng(0)
    try:
        first = worlds.reset(list(range(1, num_envs + 1)))
        action = rng.integers(0, env.action_space.n, (num_steps, num_envs))
        return first, [worlds.step(row) for row in action], action
    finally:
        worlds.close()


@pytest.mark.parametrize("engine", ["envpool", "ale"])
def test_a_lost_life_ends_an_episode_and_a_game_its_metrics(engine):
    needs(engine)
    _, steps, _ = played(engine, "Breakout", 260)
    lives, games = np.zeros(2, int), 0
    for outcome in steps:
        done = outcome.terminated | outcome.truncated
        over = {index for index, _ in outcome.ended}
        assert over <= set(np.flatnonzero(done)) and not outcome.truncated.any()
        np.testing.assert_array_equal(outcome.obs[~done], outcome.final_obs[~done])
        for i in np.flatnonzero(done):
            lives[i] += 1
            # What follows a lost life is the same game, one frame on; a new game shows four alike.
            before, after = outcome.final_obs[i], outcome.obs[i]
            goes_on = (before[..., 1:] == after[..., :3]).all()
            assert goes_on == (i not in over)
            assert (before != after).any()
            if i in over:
                assert lives[i] == 5
                lives[i], games = 0, games + 1
    assert games


@pytest.mark.parametrize("engine", ["envpool", "ale"])
def test_metrics_are_of_whole_games_before_clipping(engine):
    needs(engine)
    total, length, found = np.zeros(2), np.zeros(2), []
    _, steps, _ = played(engine, "SpaceInvaders", 150, max_steps=140)
    _, whole, _ = played(engine, "SpaceInvaders", 30, life_ends=False, clip=False, max_steps=10)
    for outcome in steps:
        assert set(np.unique(outcome.reward)) <= {0.0, 1.0}
        total, length = total + outcome.reward, length + 1
        for i, metrics in outcome.ended:
            assert metrics["episode_return"] % 5 == 0
            assert metrics["episode_return"] >= 5 * total[i] > 0  # 5 is the least one gives
            assert 0 <= metrics["episode_length"] - length[i] <= 2  # fire after a life counts
            found.append(metrics)
            total[i] = length[i] = 0
    assert found
    for t, outcome in enumerate(whole, 1):  # no step is spent on a reset
        assert outcome.truncated.all() == (t % 10 == 0) and not outcome.terminated.any()
        assert [m["episode_length"] for _, m in outcome.ended] == [10.0] * 2 * (t % 10 == 0)


def test_both_engines_play_the_same_game_pixel_by_pixel():
    needs("envpool")
    needs("ale")
    from jaxrl.host.atari import Atari

    fields = dict(max_steps=None, sticky=0.0, life_ends=False, clip=False, fire=False)
    first, steps, action = played("envpool", "Breakout", 400, num_envs=1, **fields)
    end = next(t for t, outcome in enumerate(steps) if outcome.terminated[0])
    game = Atari("Breakout", all_actions=False, **fields)

    def steps_alike(seed):
        """How many steps are the same in the game that begins with this seed's no-ops."""
        obs, _ = game.reset(seed=seed)
        if (obs != first[0]).any():
            return 0
        for t, outcome in enumerate(steps[: end + 1]):
            obs, reward, terminated, truncated, info = game.step(int(action[t, 0]))
            theirs = (outcome.reward[0], outcome.terminated[0], outcome.truncated[0])
            if (reward, terminated, truncated) != theirs or (obs != outcome.final_obs[0]).any():
                return t
        metrics = {"r": steps[end].ended[0][1]["episode_return"], "l": end + 1.0}
        assert info["episode"] == metrics
        return end + 1

    assert end > 100 and any(steps_alike(seed) == end + 1 for seed in range(60))
    game.close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_workers_do_not_import_jax():
    needs("ale")
    worlds = envs.make("atari/Pong", engine="ale").world.open(1, ACTORS)
    worlds.reset([1])
    pid = worlds.lanes[0].envs.processes[0].pid
    maps = Path(f"/proc/{pid}/maps").read_text()
    worlds.close()
    assert "ale_py" in maps and "jaxlib" not in maps


SMALL = {"num_envs": 2, "hidden": (8,), "total_steps": 32, "eval_episodes": 2, "quiet": True}
TRAINERS = {
    "ppo": {"num_steps": 8, "num_minibatches": 1, "num_epochs": 1},
    "dqn": {"num_steps": 8, "buffer_size": 64, "learning_starts": 8, "batch_size": 2},
}


@pytest.mark.parametrize(("engine", "name"), [("envpool", "ppo"), ("ale", "dqn")])
def test_the_preset_trains(engine, name):
    needs(engine)
    game = {"env": "atari/Pong", "env_args": (f"engine={engine}", "max_steps=12")}
    result = jaxrl.train(name, preset="atari", **game, **SMALL, **TRAINERS[name])
    assert result.summary["env_steps"] == 32
    assert result.summary["final_return"]["metrics"]["episode_length"]["mean"] == 12
    loss = result.metrics["td_error" if name == "dqn" else "value_loss"]
    assert np.isfinite(loss[-1]).all()
