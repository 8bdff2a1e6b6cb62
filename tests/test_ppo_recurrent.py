"""PPO of policies with a memory: they play, learn and are saved with it, and forget in time."""

from functools import partial
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit
from walk import Walk

import envs
import jaxrl
from envs.memory.memory_chain import MemoryChain
from jaxrl import networks
from jaxrl.algos import ppo
from jaxrl.evaluate import evaluate
from jaxrl.mesh import make_mesh
from jaxrl.metrics import quotient
from jaxrl.networks import NetworkSpec
from jaxrl.program import make_program, members, seed_keys
from jaxrl.rollout import Transition
from jaxrl.spaces import Box, Discrete
from train import loop
from train import ppo as trainer

BASE = ppo.Config(
    num_envs=8,
    num_steps=6,
    total_steps=48 * 8,
    num_epochs=2,
    num_minibatches=2,
    learning_rate=0.02,
    network="gru",
    hidden=(5, 4),
    normalize_obs=True,
    advantage_norm="batch",
)


def differences(a, b):
    """Every absolute difference between two trees' numbers, as one array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])


@pytest.fixture(scope="module")
def base():
    """(states before and after each of 3 updates, their metrics) in Walk, with short episodes."""
    env = ppo.wrap(Walk(stride=0.7), BASE)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(ppo.init, cfg=BASE, env=env))(init_key)], []
    update = jit(partial(ppo.update, cfg=BASE, env=env))
    keys = [jax.random.fold_in(train_key, i) for i in range(3)]
    for key in keys:
        with jax.transfer_guard("disallow"):
            state, metrics = update(states[-1], key)
        states.append(state)
        log.append(metrics)
    return states, log


def test_the_loss_plays_again_what_was_played_also_across_the_end_of_an_episode(base):
    for metrics in base[1]:
        assert quotient(metrics["episodes"]) > 8  # of 8 sequences of 6 steps
        assert quotient(metrics["first_ratio_error"]) < 1e-5
        assert quotient(metrics["approx_kl"]) > 1e-6  # the next minibatches follow a step
    memory = [np.asarray(state.carry.memory) for state in base[0]]
    assert not memory[0].any()
    forgot = [~x.any(-1) for x in memory[1:]]
    assert all(x.any() and not x.all() for x in forgot)  # some sequences begin amid an episode


def test_updates_move_all_of_the_network(base):
    before, after = base[0][0].policy, base[0][1].policy
    for part in ("hidden", "cell", "actor", "critic"):
        moved = differences(getattr(before, part), getattr(after, part))
        assert np.mean(moved > 1e-3) > 0.3, part


def test_four_devices_play_and_learn_as_one_does(base):
    def init(key, member, *, axis):
        return ppo.init(key, cfg=member.cfg, env=ppo.wrap(member.env, member.cfg), axis=axis)

    def update(state, key, member, *, axis):
        env = ppo.wrap(member.env, member.cfg)
        return ppo.update(state, key, cfg=member.cfg, env=env, axis=axis)

    assert BASE.num_blocks == 4  # a minibatch has an environment of each block of 2
    mesh = make_mesh(1, jax.devices()[:4])
    program = make_program(init, update, ppo.layout(), mesh, max_count=1)
    member = program.place(members([0], BASE, Walk(stride=0.7)))
    state, log = program.run(program.init(member), member, program.scalar(1))
    one, now = base[0][1], base[1][0]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-5, atol=1e-6),
        state.carry,
        one.carry,
    )
    assert np.max(differences(state.policy, jax.tree.map(lambda x: x[None], one.policy))) < 1e-4
    for name in ("loss", "value", "episode_return", "first_ratio_error"):
        found = [x[0, 0] for x in log[name]]
        np.testing.assert_allclose(found, now[name], rtol=1e-4, atol=1e-5, err_msg=name)


def small(network, action_space):
    """A network with a memory that sees two numbers; random parameters."""
    spec = NetworkSpec(Box(-1.0, 1.0, (2,)), action_space, network, (4, 3))
    shapes = jax.eval_shape(lambda: networks.build(spec, jax.random.key(0), memory=True))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), shapes)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_sequence_is_remembered_as_step_by_step_and_forgotten_after_an_end(cell):
    network = small(cell, Box(-1.0, 1.0, (2,)))
    obs = np.float32(np.random.default_rng(1).normal(size=(2, 5, 2)))
    done = np.array([[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], bool)

    @jit
    def run(network, obs):
        start = jax.tree.map(jnp.ones_like, networks.begin(network, (2,)))
        memory, seen = networks.recall(network, obs, (start, done))
        stepwise, now = [], start
        for t in range(5):
            now, _ = networks.look(network, now, obs[:, t])
            stepwise.append(now)
            now = jax.tree.map(lambda x, t=t: jnp.where(done[:, t, None], 0, x), now)
        read = lambda obs: network.value(*networks.recall(network, obs, (start, done))[1])  # noqa: E731
        slope = jax.grad(lambda obs: jnp.sum(read(obs)[:, -1]))(obs)
        stepwise = jax.tree.map(lambda *x: jnp.stack(x, 1), *stepwise)
        values = network.value(*seen), network.distribution(*seen).entropy()
        return memory, stepwise, slope, values

    memory, stepwise, slope, (value, entropy) = run(network, obs)
    assert len(jax.tree.leaves(memory)) == {"gru": 1, "lstm": 2}[cell]
    assert np.max(differences(memory, stepwise)) < 1e-6
    assert value.shape == entropy.shape == (2, 5)
    reached = np.any(np.abs(slope) > 0, -1)  # what the last value depends on
    np.testing.assert_array_equal(reached, [[0, 0, 1, 1, 1], [1] * 5])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_fresh_cell_still_knows_after_twenty_steps_what_it_saw_at_first(cell):
    spec = NetworkSpec(Box(-1.0, 1.0, (1,)), Discrete(2), cell, (16,))

    @jit
    def slope(key):
        network = networks.build(spec, key, memory=True)

        def last(first):
            obs = jnp.zeros((1, 20, 1)).at[0, 0].set(first)
            past = networks.begin(network, (1,)), jnp.zeros((1, 20), jnp.bool_)
            return jax.tree.leaves(networks.recall(network, obs, past)[0])[-1][0, -1]

        return jax.jacobian(last)(jnp.ones(1))

    assert np.max(np.abs(slope(jax.random.key(0)))) > 0.01  # 1e-6 with biases of 0


class Adder(flax.struct.PyTreeNode):
    """A memory that adds up the observations, which is also the value."""

    def encode(self, obs):
        return obs

    def remember(self, memory, encoded):
        return memory + encoded

    def value(self, obs, memory):
        return memory[..., 0]


@pytest.mark.parametrize(("truncated", "end"), [(True, 1 + 0.5 * (9 + 4)), (False, 1)])
def test_a_truncated_step_is_worth_what_the_memory_would_be_with_where_it_led(truncated, end):
    column = lambda *x: np.float32(x)[:, None]  # noqa: E731
    done = np.array([False, True, False])[:, None]
    steps = Transition(
        obs=column(2, 2, 1)[..., None],
        action=column(0, 0, 0),
        aux=column(0, 0, 0),
        reward=column(1, 1, 1),
        terminated=done & (not truncated),
        truncated=done & truncated,
        next_obs=column(2, 4, 3)[..., None],
    )
    carry = SimpleNamespace(memory=np.float32([[5]]))  # from the iteration before
    state = SimpleNamespace(policy=Adder(), obs_stats=None, carry=carry)
    cfg = ppo.Config(gamma=0.5, gae_lambda=0.0)
    rows = jit(lambda: ppo.prepare(state, steps, cfg))()
    np.testing.assert_array_equal(rows.value, [[7, 9, 1]])  # the third begins an episode
    np.testing.assert_array_equal(rows.target, [[1 + 0.5 * 9, end, 1 + 0.5 * 4]])
    assert rows.obs.shape == (1, 3, 1) and rows.past[1].shape == (1, 3)


def test_a_policy_with_a_memory_is_saved_and_plays_with_it(tmp_path, base):
    task = trainer.setup(trainer.Args(env="test_ppo_recurrent:Short", algo=BASE))
    state = jax.tree.map(lambda x: jnp.stack([x, x]), base[0][-1])
    policies = task.outcome.trained(state)
    task.outcome.save(tmp_path, policies)
    loaded = jaxrl.load_policy(tmp_path, 1)
    assert np.max(differences(loaded, jax.tree.map(lambda x: x[1], policies))) == 0
    obs = np.float32(np.random.default_rng(0).normal(size=(3, 7, 2)))
    memory = loaded.begin((7,))
    for now in obs:
        memory, action = loaded.step(memory, now)
    assert action.shape == (7,) and memory.shape == (7, 4)
    cold, _ = loaded.step(loaded.begin((7,)), obs[-1], jax.random.key(0))
    assert np.max(differences(memory, cold)) > 1e-4
    for call in (loaded, loaded.value):
        with pytest.raises(ValueError, match=r"network=gru has a memory; start with memory = pol"):
            call(obs[0])
    put = ppo.with_policy(base[0][0], jax.tree.map(lambda x: x[0], policies))
    assert np.max(differences(put.policy, base[0][-1].policy)) == 0


class Short(Walk):
    """Walk, for the trainer to find."""


def test_evaluation_hands_the_memory_on_and_begins_every_episode_without_one():
    def act(memory, obs, key):
        del key
        return memory + obs[2], (memory > 0).astype(jnp.int32)

    run = jit(lambda key: evaluate(act, MemoryChain(length=3), key, 32, memory=jnp.float32(0)))
    played = run(jax.random.key(0))
    np.testing.assert_array_equal(played.episode_return, np.ones(32))
    np.testing.assert_array_equal(played.metrics["episode_length"], np.full(32, 4))


def test_a_memory_is_refused_where_it_does_not_fit():
    words = "num_minibatches=4 does not divide num_envs=6; try 3 or 6"
    with pytest.raises(ValueError, match=words):
        ppo.Config(network="gru", num_envs=6)
    assert ppo.Config(num_envs=6, num_steps=6).num_blocks == 3
    with pytest.raises(ValueError, match=r"hidden=\(\) leaves network=lstm no cell; try 64"):
        trainer.setup(trainer.Args(algo=ppo.Config(network="lstm", hidden=())))
    spec = NetworkSpec(Box(-1.0, 1.0, (2,)), Discrete(2), "gru")
    with pytest.raises(ValueError, match=r"network=gru has a memory, which train.ppo alone can"):
        jax.eval_shape(lambda: networks.build(spec, jax.random.key(0)))


class Own(nnx.Module):
    """A network of one's own: an average of what it saw."""

    def __init__(self, spec, rngs):
        self.spec = spec
        self.actor = nnx.Linear(2, spec.num_outputs, rngs=rngs)

    def memory(self, batch):
        return jnp.zeros((*batch, 2))

    def encode(self, obs):
        return obs

    def remember(self, memory, encoded):
        return 0.5 * memory + 0.5 * encoded

    def distribution(self, obs, memory):
        return self.spec.distribution(self.actor(memory), obs)

    def value(self, obs, memory):
        return memory[..., 0]


def test_a_network_of_ones_own_may_have_a_memory():
    cfg = ppo.Config(network="test_ppo_recurrent:Own", num_envs=4, num_steps=3)
    assert cfg.row_steps == 3
    env = ppo.wrap(Walk(), cfg)
    state = jax.eval_shape(partial(ppo.init, cfg=cfg, env=env), jax.random.key(0))
    after, _ = jax.eval_shape(partial(ppo.update, cfg=cfg, env=env), state, jax.random.key(0))
    assert state.carry.memory.shape == after.carry.memory.shape == (4, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "low", "high"), [("gru", 0.95, 1.0), ("mlp", -0.3, 0.3)])
def test_only_with_a_memory_the_bit_at_the_begin_is_told_at_the_end(policy, low, high, tmp_path):
    algo = trainer.PRESETS["memory"]
    algo = ppo.Config(**vars(algo) | {"network": policy})
    args = trainer.Args(env="MemoryChain-v0", num_seeds=5, run_dir=tmp_path / "run", algo=algo)
    assert envs.make("MemoryChain-v0").length == 20
    found = loop.train(args, trainer.setup(args))["final_return"]["per_seed"]
    assert len(found) == 5 and low <= min(found) and max(found) <= high
