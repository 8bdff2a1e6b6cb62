"""PQN's update and its parts: exploration, targets, the network, and what it learns."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_of import one_of
from quick import jit
from walk import Walk

import envs
import jaxrl
from envs.probe import value
from jaxrl import metrics
from jaxrl.algos import pqn
from jaxrl.mesh import make_mesh
from jaxrl.networks.q_network import epsilon_greedy
from jaxrl.program import make_program, members, seed_keys
from jaxrl.resets import fill_all
from jaxrl.rollout import Decision, begin, rollout
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import TimeLimit
from train import arrays, loop
from train import pqn as trainer

RATE = 0.02
BASE = pqn.Config(
    num_envs=8,
    num_steps=4,
    total_steps=32 * 8,
    num_epochs=1,
    num_minibatches=2,
    learning_rate=RATE,
    lr_schedule="constant",
    hidden=(8,),
    epsilon_start=0.8,
    epsilon_end=0.2,
    exploration=0.5,
)


def config(**options):
    return pqn.Config(**(vars(BASE) | options))


def differences(a, b):
    """Every absolute difference between two trees' numbers, as one array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])


@pytest.fixture(scope="module")
def base():
    """(states before and after each of 4 updates, their metrics, the program) of BASE in Walk."""
    env = pqn.wrap(Walk(), BASE)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(pqn.init, cfg=BASE, env=env))(init_key)], []
    update = jit(lambda state, key, cfg: pqn.update(state, key, cfg=cfg, env=env))
    cfg = jax.tree.map(np.float32, BASE)
    keys = [jax.random.fold_in(train_key, i) for i in range(4)]
    on_device = jax.device_put(cfg)
    for key in keys:
        with jax.transfer_guard("disallow"):
            state, means = update(states[-1], key, on_device)
        states.append(state)
        log.append(means)
    return states, log, update


def test_the_first_minibatch_of_every_update_sees_the_q_of_the_rollout(base):
    for now in base[1]:
        assert metrics.quotient(now["first_q_error"]) < 1e-6
        assert metrics.quotient(now["q_error"]) > 1e-4  # the second one follows a step


def test_epsilon_falls_linearly_over_its_share_of_the_run_and_stays(base):
    states, log, update = base
    found = [float(metrics.quotient(now["epsilon"])) for now in log]
    np.testing.assert_allclose(found, [0.8, 0.65, 0.5, 0.35], rtol=1e-6)
    late = states[0].replace(iteration=jnp.int32(6))
    _, now = update(late, jax.random.key(0), jax.tree.map(jnp.float32, BASE))
    np.testing.assert_allclose(metrics.quotient(now["epsilon"]), 0.2, rtol=1e-6)


def test_updates_move_the_network_count_themselves_and_play_on(base):
    states, _, _ = base
    assert [int(s.iteration) for s in states] == [0, 1, 2, 3, 4]
    obs = np.stack([s.carry.obs for s in states])
    assert len(np.unique(obs)) == obs.size
    for before, after in pairwise(states):
        assert np.max(differences(before.network, after.network)) > 1e-3


def test_every_float_of_the_options_is_a_number_of_the_one_program(base):
    states, _, update = base
    floats = {name: x / 2 for name, x in vars(BASE).items() if isinstance(x, float)}
    assert len(floats) == len(jax.tree.leaves(BASE)) == 7
    other = jax.tree.map(jnp.float32, config(**floats))
    after, now = update(states[0], seed_keys(0)[1], other)
    assert update._cache_size() == 1
    np.testing.assert_allclose(metrics.quotient(now["learning_rate"]), RATE / 2)
    assert np.max(differences(after.network, states[1].network)) > 1e-3


def test_every_metric_is_a_finite_float32_sum(base):
    for now in base[1]:
        for name, sums in now.items():
            for x in sums:
                assert x.shape == () and x.dtype == jnp.float32 and np.isfinite(x), name
    assert {"loss", "q", "epsilon", "learning_rate", "episode_return", "x"} <= base[1][0].keys()


def test_eight_devices_play_the_first_rollout_of_one_and_learn_the_same(base):
    def init(key, member, *, axis):
        env = pqn.wrap(member.env, member.cfg)
        return pqn.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, *, axis):
        env = pqn.wrap(member.env, member.cfg)
        return pqn.update(state, key, cfg=member.cfg, env=env, axis=axis)

    mesh = make_mesh(1, jax.devices()[:8])
    assert mesh.shape["data"] == 8 and BASE.num_blocks == 8
    program = make_program(init, update, pqn.layout(), mesh, max_count=1)
    member = program.place(members([0], BASE, Walk()))
    state, log = program.run(program.init(member), member, program.scalar(1))
    one, now = base[0][1], base[1][0]
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), state.carry, one.carry)
    assert np.max(differences(state.network, jax.tree.map(lambda x: x[None], one.network))) < 1e-5
    for name, sums in now.items():
        np.testing.assert_allclose(
            [x[0, 0] for x in log[name]], sums, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(("epsilon", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_epsilon_is_the_share_of_random_actions_which_are_all_alike(epsilon, share):
    u = (np.arange(60, dtype=np.float32) + 0.5) / 60
    noise = np.stack(np.meshgrid(u, u, indexing="ij"), -1)
    q = np.broadcast_to(np.float32([0.0, 2.0, 1.0]), (60, 60, 3))
    action = np.asarray(jit(epsilon_greedy)(q, np.float32(epsilon), noise))
    assert action.dtype == np.int32
    found = np.bincount(action.ravel(), minlength=3) / action.size
    np.testing.assert_allclose(found, [share / 3, 1 - 2 * share / 3, share / 3], atol=1e-6)


class StubNetwork(flax.struct.PyTreeNode):
    def value(self, obs):
        return obs[..., 0]


@pytest.mark.parametrize(
    ("length", "limit", "end"),
    [
        (100, 3, 1 + 0.5 * 3),  # truncated at observation 3, whose value is 3
        (3, 100, 1),  # terminated there: worth nothing
        (3, 3, 1),  # both: terminated
    ],
)
def test_a_stub_network_is_asked_about_where_the_action_led_and_not_the_next_episode(
    length, limit, end
):
    env = TimeLimit(envs.make("probe/Counter-v0", episode_length=length), limit)

    def act(memory, obs, noise):
        return memory, Decision(noise, obs[..., 0])

    @jit
    def run(key):
        begin_key, pool_key, key = jax.random.split(key, 3)
        index = jnp.arange(2)
        carry, pool = begin(env, begin_key, index), fill_all(env, pool_key, index, 8)
        draw = lambda key, shape: jnp.zeros(shape, jnp.int32)  # noqa: E731
        _, _, steps, _ = rollout(env, carry, pool, act, draw, key, index, 7)
        return pqn.prepare(StubNetwork(), steps, config(gamma=0.5, q_lambda=0.0))

    rows = run(jax.random.key(0))
    one_step = np.repeat([1 + 0.5, 1 + 0.5 * 2, end, 1.5, 2, end, 1.5], 2)
    np.testing.assert_array_equal(rows.target, one_step)
    np.testing.assert_array_equal(rows.played, np.repeat([0, 1, 2, 0, 1, 2, 0], 2))
    np.testing.assert_array_equal(rows.obs[:, 0], rows.played)  # rows t*B + b


def test_the_loss_is_half_the_squared_error_of_the_action_that_was_played():
    q = np.float32([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]])
    rows = pqn.Rows(None, np.int32([0, 1, 1]), np.float32([1, 7, 8]), np.float32([3, 7, 8]))
    total, parts = pqn.loss(SimpleNamespace(q=lambda obs: q), rows)
    assert total == (2**2 / 2 + 1 / 2, 3)
    assert parts["q"] == (1 + 7 + 9, 3) and parts["q_error"] == (1, 3)


@pytest.fixture(scope="module")
def network():
    env = Walk()
    return jit(lambda key: pqn.make_policy(key, cfg=BASE, env=env))(jax.random.key(0))


def test_the_policy_takes_the_best_action_whatever_the_noise(network):
    obs = np.float32(np.random.default_rng(0).normal(size=(64, 2)))
    q, pi, best = jit(lambda n: (n.q(obs), n.distribution(obs), n.value(obs)))(network)
    np.testing.assert_array_equal(best, np.max(q, -1))
    greedy = np.argmax(q, -1)
    assert len(np.unique(greedy)) > 1
    for noise in (0.0, 0.5, 1 - 2**-24):
        np.testing.assert_array_equal(pi.sample(np.full(64, noise, np.float32)), greedy)
    np.testing.assert_array_equal(pi.mode(), greedy)
    np.testing.assert_array_equal(pi.entropy(), np.zeros(64))
    np.testing.assert_array_equal(pi.log_prob(greedy), np.zeros(64))


def test_hidden_features_do_not_grow_with_the_observation(network):
    obs = np.float32([[0.3, -0.7], [0.2, 0.9]])
    near, far = jit(lambda n, obs: (n.q(obs), n.q(1e4 * obs)))(network, obs)
    assert np.max(np.abs(far)) < 10 * np.max(np.abs(near)) + 10


def test_a_board_goes_through_convolutions_where_they_are_asked_for():
    board = Box(False, True, (5, 5, 2), np.bool_)
    env = SimpleNamespace(observation_space=board, action_space=Discrete(3))
    obs = np.random.default_rng(0).random((4, 5, 5, 2)) < 0.5

    @jit
    def run(key):
        network = pqn.make_policy(key, cfg=config(network="cnn"), env=env)
        features = network.encoder(obs)
        return features, network.q(obs), network.norms[0].scale[...]

    features, q, scale = run(jax.random.key(0))
    assert features.shape == (4, 3 * 3 * 16) and q.shape == (4, 3) and scale.shape == (8,)
    assert np.all(features >= 0) and np.all(np.std(q, 0) > 0)
    with pytest.raises(ValueError, match="network=cnn needs image observations"):
        pqn.make_policy(jax.random.key(0), cfg=config(network="cnn"), env=Walk())


def test_an_illegal_action_is_never_taken_and_never_the_best():
    space = {"legal": Box(False, True, (3,), np.bool_), "x": Box(-1.0, 1.0, (2,))}
    legal = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    obs = {"legal": legal, "x": np.ones((3, 2), np.float32)}
    noise = np.linspace(0, 1 - 2**-24, 50, dtype=np.float32)
    noise = np.stack([0 * noise, noise], -1)

    @jit
    def run(key):
        network = pqn.make_policy(
            key, cfg=BASE, env=SimpleNamespace(observation_space=space, action_space=Discrete(3))
        )
        q = network.q(obs)
        random = jax.vmap(lambda noise: epsilon_greedy(q, 1.0, noise[None]))(noise)
        gradient = jax.grad(lambda n: jnp.sum(n.value(obs)))(network)
        return q, network.value(obs), network.distribution(obs).mode(), random, gradient

    q, best, mode, random, gradient = run(jax.random.key(0))
    everything = np.ones(3, bool)  # where a game is over nothing is legal, and nothing refused
    for i, may in enumerate([legal[0], legal[1], everything]):
        np.testing.assert_array_equal(np.isfinite(q[i]), may)
        assert best[i] == np.max(q[i]) and may[mode[i]]
        assert set(np.asarray(random[:, i])) == set(np.flatnonzero(may))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


def test_a_trained_policy_is_saved_and_loaded_as_it_was(tmp_path):
    task = trainer.setup(trainer.Args(env="probe/Forever-v0", algo=BASE))
    state = jit(jax.vmap(lambda key: pqn.init(key, cfg=BASE, env=pqn.wrap(task.env, BASE))))(
        jax.random.split(jax.random.key(0), 2)
    )
    trained = task.outcome.trained(state)
    task.outcome.save(tmp_path, trained)
    loaded = jaxrl.load_policy(tmp_path, seed_index=1)
    obs = np.float32([[0.5]])
    np.testing.assert_array_equal(
        loaded.value(obs), jax.tree.map(lambda x: x[1], trained).value(obs)
    )
    other = pqn.with_policy(state, arrays.load_policies(tmp_path))
    assert np.max(differences(other, state)) == 0


def test_actions_that_are_no_choice_are_refused_before_anything_is_traced():
    with pytest.raises(ValueError, match=r"Q needs Discrete actions, not Box.*try SAC, TD3 or PPO"):
        trainer.setup(trainer.Args(env="Pendulum-v1"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_minibatches": 3}, "num_minibatches=3 does not divide num_envs.num_steps=32; try 2"),
        ({"num_envs": 0}, "num_envs=0 must be .* above 0; try 32"),
        ({"exploration": 0.0}, "exploration=0.0 must be .* above 0; try 0.2"),
        ({"q_lambda": 1.5}, r"q_lambda=1.5 must lie in \[0.0, 1.0\]; try "),
        ({"epsilon_end": float("nan")}, "epsilon_end=nan must lie in"),
        ({"reset_pool": -1}, "reset_pool=-1 must lie in"),
        ({"hidden": (8, 0)}, "hidden=0 must be .* try 128"),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(options, words):
    with pytest.raises(ValueError, match=words):
        config(**options)


PROBES = (value.ActionObsReward(), value.TwoStepDiscount(), value.Forever())


OneOf = one_of(PROBES, Discrete(2))


@pytest.fixture(scope="module")
def probes():
    """{probe: Q at observations -1, 0 and 1 [3, 2]} after learning with a gamma of 0.9."""
    cfg = config(
        num_steps=8,
        total_steps=64 * 150,
        num_epochs=2,
        hidden=(16,),
        gamma=0.9,
        q_lambda=0.5,
        lr_schedule="linear",
        reset_pool=8,
    )

    def learn(inputs):
        index, key = inputs
        env = pqn.wrap(TimeLimit(OneOf(index), 5), cfg)
        init_key, key = jax.random.split(key)
        state = pqn.init(init_key, cfg=cfg, env=env)
        keys = jax.random.split(key, cfg.num_iterations)
        state, _ = jax.lax.scan(partial(pqn.update, cfg=cfg, env=env), state, keys)
        return state.network.q(np.float32([[-1.0], [0.0], [1.0]]))

    inputs = np.arange(len(PROBES)), jax.random.split(jax.random.key(0), len(PROBES))
    q = np.asarray(jit(partial(jax.lax.map, learn))(inputs))
    return {type(probe).__name__: x for probe, x in zip(PROBES, q, strict=True)}


def test_the_value_of_each_action_at_each_observation_is_what_it_pays(probes):
    np.testing.assert_allclose(
        probes["ActionObsReward"][[0, 2]], [[1.0, -1.0], [-1.0, 1.0]], atol=0.05
    )


def test_a_reward_one_step_later_is_worth_gamma(probes):
    np.testing.assert_allclose(probes["TwoStepDiscount"][1:], [[0.9] * 2, [1.0] * 2], atol=0.05)


def test_a_reward_for_ever_is_worth_1_over_1_minus_gamma_however_short_the_clock(probes):
    np.testing.assert_allclose(probes["Forever"][2], [10.0] * 2, rtol=0.05)


@pytest.mark.slow
def test_pqn_with_default_options_solves_cartpole_in_half_a_million_steps(tmp_path):
    args = trainer.Args(num_seeds=5, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_steps) == ("CartPole-v1", 500_000)
    summary = loop.train(args, trainer.setup(args))
    assert len(summary["final_return"]["per_seed"]) == 5
    assert min(summary["final_return"]["per_seed"]) >= 475
    assert summary["run_s"] < 180
