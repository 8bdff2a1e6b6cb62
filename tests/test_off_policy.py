"""What SAC and TD3 share: play into a replay, delayed learning, devices, spaces, saved policies."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit
from reals import Drift
from walk import Walk

import envs
import jaxrl
from jaxrl import metrics, off_policy
from jaxrl.algos import sac, td3
from jaxrl.mesh import make_mesh
from jaxrl.networks.critics import each_q
from jaxrl.program import make_program, members, seed_keys
from jaxrl.rollout import Decision
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.wrappers import TimeLimit
from train import arrays, table

SIZES = {
    "num_envs": 8,
    "num_steps": 2,
    "train_every": 2,
    "total_steps": 16 * 5,
    "gradient_steps": 1,
    "batch_size": 16,
    "learning_starts": 32,
    "learning_rate": 0.01,
    "tau": 0.25,
    "hidden": (8,),
}


CASES = {
    "sac": (sac, sac.Config(**SIZES), Drift()),
    "sac of choices": (sac, sac.Config(**SIZES), Walk()),
    "td3": (td3, td3.Config(**SIZES), Drift()),
}


@pytest.fixture(scope="module", params=list(CASES))
def played(request):
    """(algorithm, options, environment, states before and after each update, their metrics)."""
    algorithm, cfg, raw = CASES[request.param]
    env = algorithm.wrap(raw, cfg)
    init_key, train_key, _ = seed_keys(0)
    states, log = [jit(partial(algorithm.init, cfg=cfg, env=env))(init_key)], []
    update = jit(lambda state, key, cfg: algorithm.update(state, key, cfg=cfg, env=env))
    keys = [jax.random.fold_in(train_key, i) for i in range(4)]
    on_device = jax.device_put(jax.tree.map(np.float32, cfg))
    for key in keys:
        with jax.transfer_guard("disallow"):
            state, now = update(states[-1], key, on_device)
        states.append(state)
        log.append(now)
    return algorithm, cfg, raw, states, log, update


def networks_of(state):
    learner = state.learner
    return learner.trained if hasattr(learner, "trained") else learner.networks


def differences(a, b):
    """Every absolute difference between two trees' numbers, as one array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.concatenate([np.abs(np.asarray(x) - np.asarray(y)).ravel() for x, y in pairs])


def test_nothing_is_learned_before_learning_starts_and_something_in_every_update_after(played):
    _, _, _, states, log, _ = played
    moved = [
        np.max(differences(networks_of(a).critics, networks_of(b).critics))
        for a, b in pairwise(states)
    ]
    assert moved[0] == 0 and min(moved[1:]) > 1e-4  # 16 steps an iteration, of 32
    assert [float(now["loss"].denominator) for now in log] == [0, 16, 16, 16]
    assert [int(s.iteration) for s in states] == [0, 1, 2, 3, 4]


def test_the_replay_holds_every_step_once_in_the_order_of_play(played):
    _, cfg, _, states, _, _ = played
    buffer = states[-1].buffer
    assert int(buffer.filled) == 8 and cfg.capacity == buffer.capacity == 10
    rows = jax.tree.map(lambda x: np.asarray(x)[:, :8], buffer.rows)
    goes_on = ~rows.terminated[:, :-1]
    np.testing.assert_array_equal(rows.next_obs[:, :-1][goes_on], rows.obs[:, 1:][goes_on])
    assert goes_on.any() and rows.terminated.any()
    assert len(np.unique(rows.obs)) == rows.obs.size


def test_targets_follow_by_a_share_of_the_way(played):
    algorithm, cfg, _, states, _, _ = played
    before, after = states[2:4]  # TD3's actor and targets learn at the critics' second step
    if algorithm is sac:
        pairs = before.learner.targets, after.learner.targets, after.learner.trained.critics
    else:
        pairs = before.learner.targets, after.learner.targets, after.learner.networks
    old, new, goal = pairs
    expected = jax.tree.map(lambda x, y: x + cfg.tau * (y - x), old, goal)
    assert np.max(differences(new, expected)) < 1e-6
    assert np.max(differences(new, old)) > 1e-5


def test_every_float_of_the_options_is_a_number_of_the_one_program(played):
    _, cfg, _, states, _, update = played
    halves = {name: x / 2 for name, x in vars(cfg).items() if isinstance(x, float)}
    assert len(halves) == len(jax.tree.leaves(cfg))
    other = jax.tree.map(jnp.float32, type(cfg)(**(vars(cfg) | halves)))
    after, _ = update(states[1], jax.random.fold_in(seed_keys(0)[1], 1), other)
    assert update._cache_size() == 1
    assert np.max(differences(networks_of(after), networks_of(states[2]))) > 1e-3


def test_every_metric_is_a_float32_sum_and_known_once_something_is_learned(played):
    for now in played[4]:
        for name, sums in now.items():
            for x in sums:
                assert x.shape == () and x.dtype == jnp.float32 and np.isfinite(x), name
    assert {"loss", "q", "actor_loss", "episode_return", "x"} <= now.keys()


def test_a_member_of_two_on_eight_devices_plays_and_learns_what_it_does_alone(played):
    algorithm, cfg, raw, states, log, _ = played

    def init(key, member, *, axis):
        env = algorithm.wrap(member.env, member.cfg)
        return algorithm.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, *, axis):
        env = algorithm.wrap(member.env, member.cfg)
        return algorithm.update(state, key, cfg=member.cfg, env=env, axis=axis)

    mesh = make_mesh(1, jax.devices()[:8])
    assert mesh.shape["data"] == 8 == cfg.num_blocks
    program = make_program(init, update, algorithm.layout(), mesh, max_count=2)
    both = program.place(members([0, 7], cfg, raw))
    # The checker takes the transpose of split keys, which vmap of a scan makes, for a use of them.
    with jax.debug_key_reuse(False):
        state, found = program.run(program.init(both), both, program.scalar(2))
    assert np.any(state.buffer.rows.obs[0] != state.buffer.rows.obs[1])
    state, one = jax.tree.map(lambda x: x[:1], state), states[2]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-5, atol=1e-6),
        jax.tree.map(jnp.float32, state.buffer),
        jax.tree.map(jnp.float32, one.buffer),
    )
    alone = jax.tree.map(lambda x: x[None], networks_of(one))
    assert np.max(differences(networks_of(state), alone)) < 1e-5
    for name, sums in log[1].items():
        np.testing.assert_allclose(
            [x[1, 0] for x in found[name]], sums, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(("length", "limit", "over"), [(100, 3, False), (3, 100, True)])
def test_a_truncated_step_keeps_where_it_led_and_is_not_terminated(length, limit, over):
    env = sac.wrap(TimeLimit(envs.make("probe/Counter-v0", episode_length=length), limit), None)
    sizes = {"num_envs": 2, "num_steps": 8, "batch_size": 2, "learning_starts": 8}
    cfg = sac.Config(**SIZES | sizes)

    def act(learner, warm, memory, obs, noise):
        return memory, Decision(noise.astype(jnp.int32))

    def step(learner, batch):
        return learner + 1, {"reward": metrics.mean(batch[0].reward)}

    @jit
    def run(key):
        begin_key, key = jax.random.split(key)
        before = jnp.int32(0), *off_policy.begin(env, begin_key, cfg, None)
        noises = (lambda key, shape: jnp.zeros(shape),) * 2
        return off_policy.iterate(env, *before, act, step, noises, key, cfg, None)

    count, _, buffer, log = run(jax.random.key(0))
    rows = jax.tree.map(lambda x: x[0, :8], buffer.rows)
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 1, 2, 3, 1, 2])
    np.testing.assert_array_equal(rows.terminated, np.isin(np.arange(8), [2, 5]) & over)
    assert (int(count), float(metrics.quotient(log["episodes"]))) == (
        3,
        4,
    )  # of four rounds the first does not teach


def test_critics_side_by_side_are_different_networks_that_see_observation_and_action(played):
    _, _, raw, states, _, _ = played
    critics, space = networks_of(states[0]).critics, raw.action_space
    rng = np.random.default_rng(0)
    obs, action = np.float32(rng.normal(size=(5, 2))), np.float32(rng.uniform(-1, 1, (5, 1)))
    inputs = (obs, action) if isinstance(space, Box) else obs
    q = jit(each_q)(critics, inputs)
    assert q.shape == ((2, 5) if isinstance(space, Box) else (2, 5, 3))
    assert np.all(np.std(np.asarray(q), 0) > 1e-3)
    one = jax.tree.map(lambda x: x[1:], critics)
    np.testing.assert_allclose(each_q(one, inputs)[0], q[1], rtol=1e-5, atol=1e-6)
    if isinstance(space, Box):
        assert np.all(np.abs(each_q(critics, (obs, -action)) - q) > 1e-4)


def test_a_trained_policy_is_saved_and_loaded_as_it_was(played, tmp_path):
    algorithm, cfg, raw, states, _, _ = played
    policy = algorithm.trained_policy(states[-1], cfg=cfg, env=raw)
    arrays.outcome(None, raw).save(tmp_path, jax.tree.map(lambda x: x[None], policy))
    loaded = jaxrl.load_policy(tmp_path)
    obs = np.float32(np.random.default_rng(0).normal(size=(64, 2)))
    for key in (None, jax.random.key(0)):
        action = loaded(obs, key)
        same = None if key is None else jax.random.clone(key)
        np.testing.assert_array_equal(action, policy(obs, same))
        assert np.all(jax.vmap(raw.action_space.contains)(action))
    fresh = algorithm.with_policy(states[0], loaded)
    assert np.max(differences(networks_of(fresh).actor, networks_of(states[-1]).actor)) == 0


UNBOUNDED = Box(np.float32([-1, -np.inf]), np.float32([1, 1]), (2,))


@pytest.mark.parametrize(
    ("algorithm", "space", "words"),
    [
        (td3, Discrete(3), r"TD3 needs a Box of .* bounds, not Discrete.n=3.; try DQN, SAC or PPO"),
        (td3, UNBOUNDED, r"TD3 needs a Box of actions with finite bounds, not Box\(.*; try PPO"),
        (sac, UNBOUNDED, r"SAC needs a Box of .* or Discrete ones, not Box\(.*; try PPO"),
        (sac, MultiDiscrete((2, 3)), r"SAC needs .* not MultiDiscrete\(.*; try PPO"),
    ],
)
def test_actions_that_it_cannot_serve_are_refused_with_who_can(algorithm, space, words):
    with pytest.raises(ValueError, match=words):
        algorithm.wrap(SimpleNamespace(action_space=space), algorithm.Config())


@pytest.mark.parametrize("name", ["sac", "td3"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 3, "num_envs": 2}, "batch_size=3 must be a multiple of num_envs=2"),
        ({"buffer_size": 10, "learning_starts": 0}, "buffer_size=10 cannot hold a batch"),
        ({"gradient_steps": 0}, "gradient_steps=0 must be .* above 0; try 1"),
        ({"tau": 1.5}, r"tau=1.5 must lie in \[0.0, 1.0\]; try 0.005"),
        ({"gamma": float("nan")}, "gamma=nan must lie in"),
        ({"total_steps": 0}, "total_steps=0 must be .* above 0; try 20000"),
    ],
)
def test_an_option_out_of_range_is_refused_with_a_value_that_works(name, options, words):
    with pytest.raises(ValueError, match=words):
        table.trainer(name).algorithm.Config(**options)


def test_a_replay_is_no_larger_than_what_is_played_and_part_of_the_estimate_of_memory():
    trainer = table.trainer("td3")
    algo = td3.Config(total_steps=10**8, buffer_size=10**9)
    parts = {part.option: part for part in trainer.setup(trainer.options(algo=algo)).parts}
    row = 4 * (3 + 1 + 1 + 3) + 1  # of Pendulum
    assert parts["buffer_size"].size == 10**8 * row + 4
    assert parts["hidden"].size < 10**7


class Frames(Drift):
    """Drift, seen as a picture."""

    @property
    def observation_space(self):
        return Box(0, 255, (6, 6, 1), np.uint8)

    def look(self, *args):
        ts = super().look(*args)
        seen = jnp.broadcast_to(ts.obs[:1, None, None], (6, 6, 1)).astype(jnp.uint8)
        return ts.replace(obs=seen, final_obs=seen)


@pytest.mark.parametrize("algorithm", [sac, td3])
def test_images_go_through_convolutions_of_actor_and_critics_and_stay_bytes_in_the_replay(
    algorithm,
):
    cfg = algorithm.Config(**SIZES, network="cnn")
    env = algorithm.wrap(Frames(), cfg)
    state = jax.eval_shape(partial(algorithm.init, cfg=cfg, env=env), jax.random.key(0))
    assert state.buffer.rows.obs.dtype == np.uint8
    actor, critics = networks_of(state).actor, networks_of(state).critics
    for tower, count in ((actor.tower, ()), (critics, (2,))):
        kernels = [x.shape for x in jax.tree.leaves(tower.encoder)]
        assert (*count, 3, 3, 1, 16) in kernels, "a convolution"
    update = partial(algorithm.update, cfg=cfg, env=env)
    after, _ = jax.eval_shape(update, state, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    with pytest.raises(ValueError, match="network=cnn needs image observations"):
        algorithm.init(jax.random.key(0), cfg=cfg, env=algorithm.wrap(Drift(), cfg))


OWN = """
import jax.numpy as jnp
from flax import nnx
from jaxrl.networks import Encoder


class Mine(nnx.Module):
    def __init__(self, spec, rngs):
        self.spec, self.encoder = spec, Encoder(spec.observation_space, rngs)
        self.out = nnx.Linear(self.encoder.size, spec.num_outputs, rngs=rngs)

    def distribution(self, obs):
        return self.spec.distribution(self.out(self.encoder(obs)), obs, jnp.zeros(()))

    def action(self, obs):
        return jnp.tanh(self.out(self.encoder(obs)))


class Mute(Mine):
    action = None
"""


@pytest.mark.parametrize("algorithm", [sac, td3])
def test_an_actor_of_ones_own_is_trained_saved_and_loaded(tmp_path, monkeypatch, algorithm):
    (tmp_path / "own_actor.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = algorithm.Config(**SIZES, network="own_actor:Mine")
    env = algorithm.wrap(Drift(), cfg)
    state = jax.jit(partial(algorithm.init, cfg=cfg, env=env))(jax.random.key(0))
    update = partial(algorithm.update, cfg=cfg, env=env)
    after, _ = jax.eval_shape(update, state, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    policy = algorithm.trained_policy(state, cfg=cfg, env=Drift())
    save = arrays.outcome(None, Drift()).save
    save(tmp_path, jax.tree.map(lambda x: x[None], policy))
    loaded = jaxrl.load_policy(tmp_path)
    obs = jnp.ones(env.observation_space.shape)
    assert type(loaded.network).__name__ == "Mine"
    np.testing.assert_array_equal(loaded(obs), policy(obs))
    if algorithm is td3:
        with pytest.raises(
            ValueError, match=r"network=own_actor:Mute needs a method action\(obs\)"
        ):
            mute = algorithm.Config(**SIZES, network="own_actor:Mute")
            algorithm.make_policy(jax.random.key(0), cfg=mute, env=env)
