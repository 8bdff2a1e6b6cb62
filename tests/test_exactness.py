"""The compiled program: the same on any devices and in any chunks, silent, traced once."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.errors import KeyReuseError
from jax.sharding import PartitionSpec as P
from walk import Walk

from jaxrl.algos import ppo
from jaxrl.mesh import make_mesh
from jaxrl.program import Program, make_program
from jaxrl.wrappers import AutoReset, TimeLimit
from train.aot import collectives, host_calls

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
LOG = 2 * CFG.num_steps  # steps whose transitions the tests' environment remembers
traces = []  # one entry for every time that Python runs through the environment's step


class Tape(flax.struct.PyTreeNode):
    """What happened in one environment; the first LOG steps, leaves [LOG]."""

    action: jax.Array
    reward: jax.Array
    done: jax.Array
    x: jax.Array
    t: jax.Array  # int32 []: steps taken


class Recorded(AutoReset):
    """AutoReset whose state keeps what happened, whatever program runs it."""

    def reset(self, key):
        inner, ts = super().reset(key)
        zeros = jnp.zeros(LOG)
        return (inner, Tape(zeros, zeros, zeros, zeros, jnp.zeros((), jnp.int32))), ts

    def refill(self, state, key):
        return super().refill(state[0], key), state[1]

    def step(self, state, action, key):
        traces.append("step")
        inner, ts = super().step(state[0], action, key)
        tape = state[1]
        row = (action, ts.reward, ts.done, ts.obs[0])
        columns = (tape.action, tape.reward, tape.done, tape.x)
        columns = [
            c.at[tape.t].set(value.astype(jnp.float32), mode="drop")
            for c, value in zip(columns, row, strict=True)
        ]
        return (inner, Tape(*columns, tape.t + 1)), ts


class Reward(Walk):
    """Walk that pays for standing to the right, so that there is something to learn."""

    def look(self, state, reward=0.0, terminated=False):
        return super().look(state, state.x, terminated)


class Built(NamedTuple):
    program: Program
    init: Callable
    run: Callable
    traces: int  # times that Python ran through the environment's step to make it


def lay_out(num_seeds, num_devices, env):
    """The program of `num_seeds` on the first of the test's eight devices, not compiled."""
    wrapped = ppo.wrap(TimeLimit(env, 5), CFG)
    how = {"cfg": CFG, "env": Recorded(wrapped.env, wrapped.pool_size)}
    mesh = make_mesh(num_seeds, jax.devices()[:num_devices])
    init, update = partial(ppo.init, **how), partial(ppo.update, **how)
    return make_program(init, update, ppo.specs(), mesh, max_count=16)


def build(num_seeds, num_devices):
    program = lay_out(num_seeds, num_devices, Reward())
    traces.clear()
    init, run = program.compile(num_seeds)
    return Built(program, init, run, len(traces))


@pytest.fixture(scope="session")
def on_one():
    return build(1, 1)


@pytest.fixture(scope="session")
def on_eight():
    return build(1, 8)


@pytest.fixture(scope="session")
def four_seeds():
    """Two seeds side by side on each of two devices."""
    return build(4, 2)


def play(built, first_seed, num_seeds, *chunks):
    """(state, metrics [iterations, K]) after chunks of these lengths, on the host."""
    seeds = built.program.seeds(first_seed, num_seeds)
    state, log = built.init(seeds), []
    for count in chunks:
        state, metrics = built.run(state, seeds, built.program.scalar(count))
        log.append({name: np.asarray(value)[:count] for name, value in metrics.items()})
    metrics = {name: np.concatenate([part[name] for part in log]) for name in log[0]}
    return jax.tree.map(np.array, state), metrics


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=tolerance), a, b)


def tape(state):
    return state.carry.env_state[1]


def test_the_first_rollout_on_one_device_and_on_eight_is_the_same_bit_for_bit(on_one, on_eight):
    """Same parameters, so the same actions, rewards, resets and observations."""
    a, b = (tape(play(built, 0, 1, 1)[0]) for built in (on_one, on_eight))
    steps = CFG.num_steps
    assert a.t.tolist() == [[steps] * CFG.num_envs]
    assert len(np.unique(a.action[..., :steps])) == 3 and 0 < a.done.sum() < a.done.size / 2
    assert len(np.unique(a.x[..., :steps])) == steps * CFG.num_envs
    same_bits(a, b)


def test_the_environments_of_a_seed_are_split_over_the_devices(on_eight):
    state = on_eight.init(on_eight.program.seeds(0, 1))
    pieces = state.discounted.addressable_shards
    assert len({piece.device for piece in pieces}) == 8
    assert {piece.data.shape for piece in pieces} == {(1, CFG.num_envs // 8)}


def test_parameters_on_one_device_and_on_eight_are_within_1e_5_after_ten_iterations(
    on_one, on_eight
):
    """Measured: 6e-8, from sums in another order; every action was still the same."""
    (a, metrics_a), (b, metrics_b) = (play(built, 0, 1, 10) for built in (on_one, on_eight))
    moved = np.abs(
        a.policy.actor.out.kernel[...] - play(on_one, 0, 1, 1)[0].policy.actor.out.kernel[...]
    )
    assert moved.max() > 1e-2  # or it would be no test
    close(a.policy, b.policy, 1e-5)
    close((a.obs_stats, a.reward_stats), (b.obs_stats, b.reward_stats), 1e-4)
    for name in ("episodes", "episode_length", "truncated_share", "pool_exhausted"):
        same_bits(metrics_a[name], metrics_b[name])


@pytest.mark.parametrize("devices", [1, 8])
def test_the_result_does_not_depend_on_how_a_run_is_cut_into_chunks(devices, request):
    built = request.getfixturevalue({1: "on_one", 8: "on_eight"}[devices])
    same_bits(play(built, 0, 1, 7), play(built, 0, 1, 3, 4))


def test_a_seed_among_four_is_the_seed_alone(on_one, four_seeds):
    """Same rollouts, parameters within 1e-5 after ten iterations (measured: 6e-8)."""
    many, many_metrics = play(four_seeds, 0, 4, 10)
    alone, metrics = play(on_one, 3, 1, 10)
    third = jax.tree.map(lambda x: x[3:], many)
    same_bits(tape(third), tape(alone))
    close(third.policy, alone.policy, 1e-5)
    same_bits(many_metrics["episodes"][:, 3:], metrics["episodes"])
    assert (
        np.abs(many.policy.critic.out.kernel[...][0] - alone.policy.critic.out.kernel[...][0]).max()
        > 1e-2
    )


def test_chunks_of_any_length_run_without_a_transfer_to_or_from_the_device(on_one, on_eight):
    for built in (on_one, on_eight):
        seeds = built.program.seeds(0, 1)
        counts = [built.program.scalar(n) for n in (1, 3)]
        state = built.init(seeds)
        with jax.transfer_guard("disallow"):
            with pytest.raises(Exception, match=r"[Dd]isallowed"):
                jnp.sin(np.ones(3))  # the guard is awake
            for count in counts:
                state, _ = built.run(state, seeds, count)
        assert int(np.asarray(state.iteration)[0]) == 4


def test_the_environment_is_traced_once_for_each_program(on_one, on_eight, four_seeds):
    assert [built.traces for built in (on_one, on_eight, four_seeds)] == [1, 1, 1]
    traces.clear()
    play(on_one, 0, 1, 1, 2, 5)
    play(on_one, 9, 1, 4)
    assert traces == []


def test_the_program_never_calls_the_host(on_one, on_eight, four_seeds):
    for built in (on_one, on_eight, four_seeds):
        assert host_calls(built.run.as_text()) == []


def test_the_only_collective_is_the_all_reduce_and_seeds_have_none(on_one, on_eight, four_seeds):
    assert set(collectives(on_eight.run.as_text())) == {"all-reduce"}
    assert not collectives(on_one.run.as_text())
    assert not collectives(four_seeds.run.as_text())


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
    program = lay_out(2, 1, Reward())
    state, seeds, count = program.abstract(2)
    program.init.lower(seeds)
    program.run.lower(state, seeds, count)
    with pytest.raises(KeyReuseError):
        lay_out(2, 1, Reusing()).run.lower(state, seeds, count)
