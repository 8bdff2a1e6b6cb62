"""Other numbers are the same program: read from the compilation cache on disk."""

from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxrl import envs
from jaxrl.algos import ppo
from jaxrl.mesh import make_mesh
from jaxrl.program import make_program, members


@pytest.fixture
def cache(tmp_path):
    """A folder that every compiled program goes to; the suite's own is back afterwards."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_ppo(cache: Path, gravity: float, **numbers) -> set[str]:
    """Compile PPO on CartPole as a run does; the names of all programs in the cache then."""
    cfg = ppo.Config(num_envs=2, num_steps=4, num_minibatches=2, hidden=(4,), **numbers)
    env = envs.make("CartPole-v1", gravity=gravity)

    def init(key, member, axis):
        env = ppo.wrap(member.env, member.cfg)
        return ppo.init(key, cfg=member.cfg, env=env, axis=axis)

    def update(state, key, member, axis):
        env = ppo.wrap(member.env, member.cfg)
        return ppo.update(state, key, cfg=member.cfg, env=env, axis=axis)

    program = make_program(init, update, ppo.layout(), make_mesh(1, jax.devices()[:1]), 4)
    program.compile(members([0], cfg, env))
    return {path.name for path in cache.iterdir() if path.name.endswith("-cache")}


def test_another_learning_rate_or_gravity_compiles_nothing_and_another_size_does(cache):
    first = compile_ppo(cache, 9.8)
    assert any(name.startswith("jit_run") for name in first)
    assert compile_ppo(cache, 3.7, learning_rate=1e-4, gamma=0.9, entropy_coef=0.0) == first
    more = compile_ppo(cache, 9.8, num_epochs=1)
    assert len(more) > len(first)
