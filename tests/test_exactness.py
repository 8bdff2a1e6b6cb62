"""The compiled program: the same on any devices and in any chunks, silent, traced once."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import KeyReuseError
from jax.sharding import PartitionSpec as P
from walk import Walk

from jaxrl import config
from jaxrl.algos import ppo
from jaxrl.mesh import DATA, SEED, axis_size, make_mesh
from jaxrl.program import Member, Program, make_program, members, stack
from jaxrl.rollout import Transition
from jaxrl.wrappers import TimeLimit
from train import loop, table
from train.aot import collectives, host_calls
from train.flags import parse

CFG = ppo.Config(
    total_steps=16 * 8 * 40,
    num_envs=16,
    num_steps=8,
    num_epochs=2,
    num_minibatches=2,
    hidden=(8,),
    normalize_obs=True,
    normalize_reward=True,
)
traces = []  # one entry for every time that Python runs through the environment's step


class Reward(Walk):
    """Walk that pays for standing to the right, so that there is something to learn."""

    def step(self, state, action, key):
        traces.append("step")
        return super().step(state, action, key)

    def look(self, state, reward=0.0, terminated=False):
        return super().look(state, state.x, terminated)


class Kept(flax.struct.PyTreeNode):
    """PPO's state, and the transitions of the last rollout."""

    inner: ppo.State
    steps: Transition

    @property
    def iteration(self):
        return self.inner.iteration


def init(key, member, *, axis):
    env = ppo.wrap(member.env, member.cfg)
    state = ppo.init(key, cfg=member.cfg, env=env, axis=axis)
    shape = (CFG.num_steps, CFG.num_envs // axis_size(axis))
    obs, number, flag = jnp.zeros((*shape, 2)), jnp.zeros(shape), jnp.zeros(shape, jnp.bool_)
    action = jnp.zeros(shape, jnp.int32)
    return Kept(state, Transition(obs, action, number, number, flag, flag, obs))


def update(state, key, member, *, axis):
    """`ppo.update`, whose state keeps what it has learned from."""
    learn = ppo.learn

    def learn_and_keep(state, carry, steps, *rest, **how):
        state, metrics = learn(state, carry, steps, *rest, **how)
        return Kept(state, steps), metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "learn", learn_and_keep)
        env = ppo.wrap(member.env, member.cfg)
        return ppo.update(state.inner, key, cfg=member.cfg, env=env, axis=axis)


def member(seed, stride=0.25, **numbers):
    env = TimeLimit(Reward(stride=stride), 5)
    return Member(np.uint32(seed), config.with_values(CFG, **numbers), env)


# Seeds, hyperparameters and physics side by side: the first and the last differ in seed alone.
MEMBERS = (
    member(0),
    member(1, learning_rate=1e-3, gamma=0.9, gae_lambda=0.8),
    member(2, stride=0.15, entropy_coef=0.1, clip_eps=0.05, value_coef=1.0, max_grad_norm=0.1),
    member(3),
)


class Built(NamedTuple):
    program: Program
    init: Callable
    run: Callable
    traces: int  # times that Python ran through the environment's step to make it


def lay_out(num_members, num_devices):
    """The program of so many members on the first of the test's eight devices, not compiled."""
    mesh = make_mesh(num_members, jax.devices()[:num_devices])
    layout = Kept(ppo.layout(), P(SEED, None, DATA))
    return make_program(init, update, layout, mesh, max_count=16)


def build(num_members, num_devices):
    program = lay_out(num_members, num_devices)
    traces.clear()
    init, run = program.compile(stack(MEMBERS[:num_members]))
    return Built(program, init, run, len(traces))


@pytest.fixture(scope="module")
def on_one():
    return build(1, 1)


@pytest.fixture(scope="module")
def on_eight():
    return build(1, 8)


@pytest.fixture(scope="module")
def four_members():
    """Two members side by side on each of two devices."""
    return build(4, 2)


def play(built, chosen, *chunks):
    """(state, metrics [iterations, K]) after chunks of these lengths, on the host."""
    placed = built.program.place(stack(chosen))
    state, log = built.init(placed), []
    for count in chunks:
        state, metrics = built.run(state, placed, built.program.scalar(count))
        log.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], metrics))
    return jax.tree.map(np.array, state), jax.tree.map(lambda *x: np.concatenate(x), *log)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=tolerance), a, b)


def test_the_first_rollout_on_one_device_and_on_eight_is_the_same_bit_for_bit(on_one, on_eight):
    """Same parameters, so the same actions, rewards, resets and observations."""
    a, b = (played(built, MEMBERS[:1], 1) for built in (on_one, on_eight))
    assert a.reward.shape == (1, CFG.num_steps, CFG.num_envs)
    assert len(np.unique(a.action)) == 3 and 0 < a.done.sum() < a.done.size / 2
    assert len(np.unique(a.next_obs[..., 0])) == a.reward.size
    same_bits(a, b)


def played(built, chosen, *chunks):
    """The last rollout's transitions, without log-probs: they come from other sums."""
    return play(built, chosen, *chunks)[0].steps.replace(aux=())


def test_the_environments_of_a_member_are_split_over_the_devices(on_eight):
    state = on_eight.init(on_eight.program.place(stack(MEMBERS[:1])))
    pieces = state.inner.discounted.addressable_shards
    assert len({piece.device for piece in pieces}) == 8
    assert {piece.data.shape for piece in pieces} == {(1, CFG.num_envs // 8)}


def test_parameters_on_one_device_and_on_eight_are_within_1e_5_after_ten_iterations(
    on_one, on_eight
):
    """Measured: 6e-8, from sums in another order; every action was still the same."""
    (a, metrics_a), (b, metrics_b) = (play(built, MEMBERS[:1], 10) for built in (on_one, on_eight))
    start = play(on_one, MEMBERS[:1], 1)[0].inner.policy
    a, b = a.inner, b.inner
    moved = np.abs(a.policy.actor.out.kernel[...] - start.actor.out.kernel[...])
    assert moved.max() > 1e-2  # or it would be no test
    close(a.policy, b.policy, 1e-5)
    close((a.obs_stats, a.reward_stats), (b.obs_stats, b.reward_stats), 1e-4)
    for name in ("episodes", "episode_length", "truncated_share", "pool_exhausted"):
        same_bits(metrics_a[name], metrics_b[name])


@pytest.mark.parametrize("devices", [1, 8])
def test_the_result_does_not_depend_on_how_a_run_is_cut_into_chunks(devices, request):
    built = request.getfixturevalue({1: "on_one", 8: "on_eight"}[devices])
    same_bits(play(built, MEMBERS[:1], 7), play(built, MEMBERS[:1], 3, 4))


@pytest.mark.parametrize("index", [3, 1, 2], ids=["seed", "hyperparameters", "physics"])
def test_a_member_among_four_is_the_member_alone(on_one, four_members, index):
    """Same rollouts, parameters within 1e-5 after ten iterations (measured: 6e-8); and alone it
    runs in the executable that was compiled for other numbers."""
    alone = MEMBERS[index : index + 1]
    only = lambda tree: jax.tree.map(lambda x: x[index : index + 1], tree)  # noqa: E731
    for chunks in ((1,), (1, 1)):
        same_bits(only(played(four_members, MEMBERS, *chunks)), played(on_one, alone, *chunks))
    many, many_metrics = play(four_members, MEMBERS, 10)
    one, metrics = play(on_one, alone, 10)
    close(only(many).inner.policy, one.inner.policy, 1e-5)
    same_bits(many_metrics["episodes"].numerator[:, index], metrics["episodes"].numerator[:, 0])
    critic = many.inner.policy.critic.out.kernel[...]
    assert all(np.abs(critic[index] - critic[i]).max() > 1e-2 for i in range(4) if i != index)


def test_every_number_of_options_and_environment_does_something(on_one):
    """What is a leaf reaches the program: none was read when it was traced."""
    plain = play(on_one, [member(0)], 6)[0].inner
    for name in vars(CFG):
        number = getattr(CFG, name)
        if isinstance(number, float):
            other = play(on_one, [member(0, **{name: 0.1 * number})], 6)[0].inner
            moved = jax.tree.map(lambda x, y: np.any(x != y), plain.policy, other.policy)
            assert any(jax.tree.leaves(moved)), name
    other = play(on_one, [member(0, stride=0.2)], 6)[0].inner
    assert np.any(other.carry.obs != plain.carry.obs)


def test_chunks_of_any_length_run_without_a_transfer_to_or_from_the_device(on_one, on_eight):
    for built in (on_one, on_eight):
        placed = built.program.place(stack(MEMBERS[:1]))
        counts = [built.program.scalar(n) for n in (1, 3)]
        state = built.init(placed)
        with jax.transfer_guard("disallow"):
            with pytest.raises(Exception, match=r"[Dd]isallowed"):
                jnp.sin(np.ones(3))  # the guard is awake
            for count in counts:
                state, _ = built.run(state, placed, count)
        assert int(np.asarray(state.iteration)[0]) == 4


def test_the_environment_is_traced_once_for_each_program(on_one, on_eight, four_members):
    assert [built.traces for built in (on_one, on_eight, four_members)] == [1, 1, 1]
    traces.clear()
    play(on_one, MEMBERS[:1], 1, 2, 5)
    play(on_one, MEMBERS[2:3], 4)
    assert traces == []


def test_the_program_never_calls_the_host(on_one, on_eight, four_members):
    for built in (on_one, on_eight, four_members):
        assert host_calls(built.run.as_text()) == []


def test_the_only_collective_is_the_all_reduce_and_seeds_have_none(on_one, on_eight, four_members):
    assert set(collectives(on_eight.run.as_text())) == {"all-reduce"}
    assert not collectives(on_one.run.as_text())
    assert not collectives(four_members.run.as_text())


def test_collectives_and_host_calls_are_seen_where_there_are_some():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def talk(x):
        jax.debug.callback(lambda x: None, x.sum())
        x = jax.lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])
        return jax.lax.all_gather(jax.lax.psum(x.sum(), "data") + x, "data")

    talking = jax.shard_map(talk, mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=False)
    hlo = jax.jit(talking).lower(jnp.ones(16)).compile().as_text()
    assert set(collectives(hlo)) == {"collective-permute", "all-reduce", "all-gather"}
    assert any("callback" in call for call in host_calls(hlo))


class Reusing(Reward):
    """Draws from a key that its step has used."""

    def step(self, state, action, key):
        state, ts = super().step(state, action, key)
        return state, ts.replace(reward=ts.reward + jax.random.normal(key))


def test_no_key_is_used_twice():
    assert jax.config.jax_debug_key_reuse  # set in conftest.py
    program, two = lay_out(2, 1), stack(MEMBERS[:2])
    state, placed, count = program.abstract(two)
    program.init.lower(placed)
    program.run.lower(state, placed, count)
    reusing = [one.replace(env=TimeLimit(Reusing(), 5)) for one in MEMBERS[:2]]
    state, placed, count = program.abstract(stack(reusing))
    with pytest.raises(KeyReuseError):
        program.run.lower(state, placed, count)


@pytest.mark.parametrize(
    "flags",
    [
        ("--algo.learning-rate", "1e-3", "--algo.gamma", "0.9", "--algo.entropy-coef", "0.1"),
        ("--env-args", "gravity=3.7", "half_length=0.4", "max_steps=77"),
        ("--seed", "5"),
    ],
)
def test_a_command_line_with_other_numbers_is_the_same_program(flags):
    """To the letter, so that the compilation cache has it."""
    assert lowered(*flags) == lowered() != lowered("--algo.num-envs", "8")


@cache
def lowered(*flags):
    trainer = table.trainer("ppo")
    args = parse(trainer, ["--algo.hidden", "8", *flags])
    task = trainer.setup(args)
    program = loop.program_of(task, make_mesh(1, jax.devices()[:1]))
    several = members([args.seed], task.cfg, task.env)
    return program.run.lower(*program.abstract(several)).as_text()
