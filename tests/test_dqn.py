"""DQN's update and its parts: targets, the target network, when it learns, and what."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from walk import Walk

import envs
import jaxrl
from envs.probe import value
from jaxrl import metrics, replay
from jaxrl.algos import dqn
from jaxrl.mesh import make_mesh
from jaxrl.program import make_program, members, seed_keys
from jaxrl.resets import fill_all
from jaxrl.rollout import Decision, begin, rollout
from jaxrl.wrappers import TimeLimit
from train import arrays, loop
from train import dqn as trainer

BASE = dqn.Config(
    num_envs=8,
    num_steps=4,
    train_every=2,
    gradient_steps=3,
    batch_size=16,
    buffer_size=56,
    learning_starts=24,
    total_steps=32 * 8,
    learning_rate=0.02,
    lr_schedule="constant",
    hidden=(8,),
    n_step=2,
    dueling=True,
    prioritised=True,
    target_every=4,
    tau=0.5,
    epsilon_start=0.8,
    epsilon_end=0.2,
    exploration=0.5,
)


def config(**options):
    return dqn.Config(**(vars(BASE) | options))


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(np.max(np.abs(np.asarray(x, float) - np.asarray(y, float))) for x, y in pairs)


@pytest.fixture(scope="module")
def base():
    """(states before and after each of 4 updates, their metrics, the program) of BASE in Walk."""
    env = dqn.wrap(Walk(), BASE)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(dqn.init, cfg=BASE, env=env))(init_key)], []
    update = jit(lambda state, key, cfg: dqn.update(state, key, cfg=cfg, env=env))
    cfg = jax.device_put(jax.tree.map(np.float32, BASE))
    for i in range(4):
        key = jax.random.fold_in(train_key, i)
        with jax.transfer_guard("disallow"):
            state, means = update(states[-1], key, cfg)
        states.append(state)
        log.append(means)
    return states, log, update


def test_nothing_is_learned_before_the_replay_is_warm_and_then_every_round(base):
    batches = [float(now["loss"].denominator) / 16 for now in base[1]]
    assert batches == [3, 6, 6, 6]  # 16 of 24 rows after the first round
    assert [int(s.learner.updates) for s in base[0]] == [0, 3, 1, 3, 1]  # modulo target_every


def test_the_replay_holds_what_was_played_and_the_ring_turns(base):
    states, _, _ = base
    for state in states[2:]:
        rows, filled = state.buffer.rows, int(state.buffer.filled)
        assert filled == BASE.capacity == 7
        newest = (int(state.buffer.count) - 1) % 7
        goes_on = ~(rows.terminated | rows.truncated)[:, newest]
        np.testing.assert_array_equal(rows.next_obs[:, newest][goes_on], state.carry.obs[goes_on])
        for place in range(7):
            after = (place + 1) % 7
            same = ~(rows.terminated | rows.truncated)[:, place] & (place != newest)
            np.testing.assert_array_equal(rows.next_obs[same, place], rows.obs[same, after])


def test_what_is_drawn_has_a_priority_of_its_error_and_the_newest_step_none_yet(base):
    for state in base[0][1:]:
        weight = np.asarray(state.priorities.weight).reshape(8, -1)[:, :7]
        newest = (int(state.buffer.count) - 1) % 7
        kept = np.arange(7) < int(state.buffer.filled)
        np.testing.assert_array_equal(weight > 0, [kept & (np.arange(7) != newest)] * 8)
        assert len(np.unique(weight)) > 12


def test_updates_move_the_network_and_the_target_follows_at_its_turn(base):
    learners = [s.learner for s in base[0]]
    for before, after in pairwise(learners):
        assert largest_difference(before.network, after.network) > 1e-3
    assert largest_difference(learners[0].target, learners[1].target) == 0
    assert largest_difference(learners[1].target, learners[2].target) > 1e-3


@pytest.mark.parametrize(("updates", "share"), [(0, 0.0), (2, 0.0), (3, 0.25)])
def test_the_target_takes_a_step_of_tau_after_every_so_many_batches(updates, share):
    cfg, ones = config(tau=0.25), {"w": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, ones)
    start = dqn.optimiser(cfg).init(ones)
    learner = dqn.descend(dqn.Learner(ones, zeros, start, jnp.int32(updates)), ones, 1e-9, cfg)
    np.testing.assert_allclose(learner.target["w"], share, rtol=1e-5)
    assert int(learner.updates) == (updates + 1) % 4


def test_every_float_of_the_options_is_a_number_of_the_one_program(base):
    states, _, update = base
    floats = {name: x / 2 for name, x in vars(BASE).items() if isinstance(x, float)}
    assert len(floats) == len(jax.tree.leaves(BASE)) == 9
    after, now = update(states[2], seed_keys(0)[1], jax.tree.map(jnp.float32, config(**floats)))
    assert update._cache_size() == 1
    np.testing.assert_allclose(metrics.quotient(now["epsilon"]), 0.1, rtol=1e-6)
    assert largest_difference(after.learner.network, states[3].learner.network) > 1e-3


def test_every_metric_is_a_finite_float32_sum(base):
    for now in base[1]:
        for name, sums in now.items():
            for x in sums:
                assert x.shape == () and x.dtype == jnp.float32 and np.isfinite(x), name
    assert {"loss", "q", "td_error", "epsilon", "episode_return", "x"} <= base[1][0].keys()


def test_a_member_of_two_on_eight_devices_plays_and_learns_what_it_does_alone(base):
    def init(key, member, *, axis):
        env = dqn.wrap(member.env, member.cfg)
        return dqn.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, *, axis):
        env = dqn.wrap(member.env, member.cfg)
        return dqn.update(state, key, cfg=member.cfg, env=env, axis=axis)

    mesh = make_mesh(1, jax.devices()[:8])
    assert mesh.shape["data"] == 8 and BASE.num_blocks == 8
    program = make_program(init, update, dqn.layout(), mesh, max_count=1)
    both = program.place(members([0, 7], BASE, Walk()))
    # The checker takes the transpose of split keys, which vmap of a scan makes, for a use of them.
    with jax.debug_key_reuse(False):
        state, log = program.run(program.init(both), both, program.scalar(1))
    assert np.any(state.buffer.rows.obs[0] != state.buffer.rows.obs[1])
    state = jax.tree.map(lambda x: x[:1], state)
    one, now = jax.tree.map(lambda x: x[None], base[0][1]), base[1][0]
    exact = (state.carry, state.buffer), (one.carry, one.buffer)
    jax.tree.map(np.testing.assert_array_equal, *exact)
    assert largest_difference(state.priorities, one.priorities) < 1e-4
    assert largest_difference(state.learner, one.learner) < 1e-4
    for name, sums in now.items():
        np.testing.assert_allclose(
            [x[0, 0] for x in log[name]], sums, rtol=1e-4, atol=1e-5, err_msg=name
        )


class Stub(flax.struct.PyTreeNode):
    """Values (x, bonus - x) of an observation whose first number is x."""

    bonus: float

    def q(self, obs):
        x = obs[..., 0]
        return jnp.stack([x, self.bonus - x], -1)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("length", "limit", "following"),
    [
        (100, 3, 3.0),  # truncated at observation 3, whose value is 3
        (3, 100, 0.0),  # terminated there: worth nothing
        (3, 3, 0.0),  # both: terminated
    ],
)
def test_a_target_bootstraps_from_where_the_last_action_led_and_not_the_next_episode(
    n_step, length, limit, following
):
    env = TimeLimit(envs.make("probe/Counter-v0", episode_length=length), limit)

    def act(memory, obs, noise):
        return memory, Decision(noise)

    @jit
    def run(key):
        begin_key, pool_key, key = jax.random.split(key, 3)
        index = jnp.arange(2)
        carry, pool = begin(env, begin_key, index), fill_all(env, pool_key, index, 8)
        draw = lambda key, shape: jnp.zeros(shape, jnp.int32)  # noqa: E731
        _, _, steps, _ = rollout(env, carry, pool, act, draw, key, index, 7)
        cfg = config(gamma=0.5, n_step=n_step, double=False)
        buffer = replay.Replay(jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), steps), jnp.int32(7))
        where = jnp.zeros(3, jnp.int32), jnp.arange(3)
        return dqn.prepare(SimpleNamespace(target=Stub(-9.0)), buffer, where, jnp.ones(3), cfg)

    batch = run(jax.random.key(0))
    one = [1 + 0.5 * 1, 1 + 0.5 * 2, 1 + 0.5 * following]  # from observations 0, 1 and 2
    three = [1 + 0.5 + 0.25 + 0.125 * following, 1 + 0.5 + 0.25 * following, one[2]]
    np.testing.assert_array_equal(batch.target, one if n_step == 1 else three)
    np.testing.assert_array_equal(batch.obs[:, 0], [0, 1, 2])


@pytest.mark.parametrize(("double", "value"), [(True, 4), (False, 6)])
def test_with_double_the_network_chooses_and_the_target_network_judges(double, value):
    """At x = 4 the target's values are (4, 6) and the network's (4, -1): it would take 4."""
    no, obs = jnp.zeros((1, 1), bool), jnp.zeros((1, 1, 1))
    step = dqn.Step(obs, jnp.zeros((1, 1), int), jnp.ones((1, 1)), no, no, obs + 4)
    buffer = replay.Replay(step, jnp.int32(1))
    learner = SimpleNamespace(network=Stub(3.0), target=Stub(10.0))
    where = jnp.zeros(1, int), jnp.zeros(1, int)
    cfg = config(gamma=0.5, n_step=1, double=double)
    batch = dqn.prepare(learner, buffer, where, jnp.ones(1), cfg)
    np.testing.assert_array_equal(batch.target, [1 + 0.5 * value])


def test_the_loss_is_hubers_times_the_weight_for_the_action_that_was_played():
    q = np.float32([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0]])
    weight = np.float32([1.0, 1.0, 0.5])
    batch = dqn.Batch(None, np.int32([0, 1, 1]), np.float32([4, 7, 8.5]), weight)
    total, parts = dqn.loss(SimpleNamespace(q=lambda obs: q), batch)
    assert total == (3 - 0.5 + 0.5 * 0.5**2 / 2, 3)
    assert parts["q"] == (1 + 7 + 9, 3) and parts["td_error"] == (3 + 0.5, 3)


def test_a_dueling_network_adds_the_advantage_beyond_its_mean_to_the_value():
    env = Walk()
    network = dqn.make_policy(jax.random.key(0), cfg=BASE, env=env)
    obs = np.float32(np.random.default_rng(0).normal(size=(4, 2)))
    x = jax.nn.relu(network.hidden[0](obs))
    out = network.out(x)
    assert out.shape == (4, 4) and len(network.norms) == 0
    np.testing.assert_allclose(network.q(obs).mean(-1), out[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        network.q(obs)[:, 1] - network.q(obs)[:, 0], out[:, 2] - out[:, 1], rtol=1e-5, atol=1e-6
    )


def test_a_trained_policy_is_saved_and_loaded_as_it_was(tmp_path):
    task = trainer.setup(trainer.Args(env="probe/Forever-v0", algo=BASE))
    state = jit(jax.vmap(lambda key: dqn.init(key, cfg=BASE, env=dqn.wrap(task.env, BASE))))(
        jax.random.split(jax.random.key(0), 2)
    )
    trained = task.outcome.trained(state)
    task.outcome.save(tmp_path, trained)
    loaded = jaxrl.load_policy(tmp_path, seed_index=1)
    obs = np.float32([[0.5]])
    np.testing.assert_array_equal(
        loaded.value(obs), jax.tree.map(lambda x: x[1], trained).value(obs)
    )
    other = dqn.with_policy(state, arrays.load_policies(tmp_path))
    assert largest_difference(other.learner, state.learner) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_every": 3}, "train_every=3 does not divide num_steps=4; try 2 or 4"),
        ({"batch_size": 12}, "batch_size=12 must be a multiple of num_envs=8, or .*; try 8"),
        ({"buffer_size": 12}, "buffer_size=12 cannot hold learning_starts=24; try 24"),
        ({"buffer_size": 24, "train_every": 4}, "=24 cannot hold 4 steps of num_envs=8; try 32"),
        ({"n_step": 8}, "buffer_size=56 cannot hold 8 steps of num_envs=8; try 64"),
        ({"n_step": 0}, "n_step=0 must be .* try 1"),
        ({"tau": 0.0}, "tau=0.0 must be .* above 0; try 1.0"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie in \[0.0, 1.0\]; try 0.6"),
        ({"beta": float("nan")}, "beta=nan must lie in"),
        ({"hidden": (8, 0)}, "hidden=0 must be .* try 64"),
        (
            {"network": "my:Net", "dueling": False, "rescale": True},
            "rescale=True is for network=mlp or cnn, not my",
        ),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(options, words):
    with pytest.raises(ValueError, match=words):
        config(**options)


@pytest.mark.parametrize("dueling", [False, True])
def test_rescaled_observations_are_seen_between_their_bounds(dueling):
    env = dqn.wrap(envs.make("MountainCar-v0"), cfg := config(dueling=dueling, rescale=True))
    network = dqn.make_policy(jax.random.key(0), cfg=cfg, env=env)
    plain = dqn.make_policy(jax.random.key(0), cfg=config(dueling=dueling), env=env)
    obs, middle, half = jnp.float32([0.3, -0.02]), jnp.array([-0.3, 0.0]), jnp.array([0.9, 0.07])
    np.testing.assert_allclose(network.q(obs), plain.q((obs - middle) / half), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        ("Pendulum-v1", {}, r"Q needs Discrete actions, not Box.*try SAC, TD3 or PPO"),
        ("CartPole-v1", {"network": "cnn"}, "network=cnn needs image observations"),
        (
            "CartPole-v1",
            {"network": "jaxrl.networks:ActorCritic", "dueling": False},
            r"needs a method q\(obs\)",
        ),
    ],
)
def test_what_q_learning_cannot_serve_is_refused_before_anything_is_traced(env, options, words):
    with pytest.raises(ValueError, match=words):
        trainer.setup(trainer.Args(env=env, algo=config(**options)))


def test_the_value_of_a_reward_for_ever_is_1_over_1_minus_gamma_however_short_the_clock():
    env = TimeLimit(value.Forever(), 5)
    cfg = config(
        total_steps=32 * 120, gamma=0.9, tau=1.0, reset_pool=4, learning_starts=0, n_step=1,
        learning_rate=0.01, gradient_steps=8,
    )  # fmt: skip

    @jit
    def learn(key):
        init_key, key = jax.random.split(key)
        wrapped = dqn.wrap(env, cfg)
        state = dqn.init(init_key, cfg=cfg, env=wrapped)
        keys = jax.random.split(key, cfg.num_iterations)
        state, _ = jax.lax.scan(partial(dqn.update, cfg=cfg, env=wrapped), state, keys)
        return state.learner.network.q(state.carry.obs)

    np.testing.assert_allclose(learn(jax.random.key(0)), np.full((8, 1), 10.0), rtol=0.05)


@pytest.mark.slow
def test_dqn_with_default_options_solves_cartpole(tmp_path):
    args = trainer.Args(num_seeds=5, run_dir=tmp_path / "run")
    summary = loop.train(args, trainer.setup(args))
    assert len(summary["final_return"]["per_seed"]) == 5
    assert summary["final_return"]["mean"] >= 475
