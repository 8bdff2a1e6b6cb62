"""Times PureJaxRL, unmodified from a checkout of it, on one setting and prints one JSON record."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import gymnax
import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.compiled import compile_and_run
from benchmarks.record import chosen, emit, machine, parser, peak_memory_mb, versions
from benchmarks.settings import EVAL_SEED, NUM_EVAL_EPISODES, Setting


def load(checkout: Path) -> tuple[ModuleType, ModuleType]:
    """PureJaxRL's modules `ppo` and `wrappers`.

    wrappers.py imports brax and navix for classes that no setting here uses. Stand-ins in
    sys.modules spare both installs and leave its files as they are.
    """
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        sys.modules[name] = MagicMock()
    sys.path.insert(0, str(checkout / "purejaxrl"))
    import ppo
    import wrappers

    return ppo, wrappers


def ppo_config(setting: Setting) -> dict[str, Any]:
    """The setting in PureJaxRL's names; its widths and Adam's eps are fixed in its source."""
    assert setting.hidden == (64, 64) and setting.adam_eps == 1e-5
    return {
        "LR": setting.lr,
        "NUM_ENVS": setting.num_envs,
        "NUM_STEPS": setting.num_steps,
        "TOTAL_TIMESTEPS": setting.total_steps,
        "UPDATE_EPOCHS": setting.num_epochs,
        "NUM_MINIBATCHES": setting.num_minibatches,
        "GAMMA": setting.gamma,
        "GAE_LAMBDA": setting.gae_lambda,
        "CLIP_EPS": setting.clip_eps,
        "ENT_COEF": setting.ent_coef,
        "VF_COEF": setting.vf_coef,
        "MAX_GRAD_NORM": setting.max_grad_norm,
        "ACTIVATION": setting.activation,
        "ENV_NAME": setting.env_id,
        "ANNEAL_LR": True,
        "DEBUG": False,
    }


class World(NamedTuple):
    """PureJaxRL's network and its wrapped environment, the latter batched."""

    network: Any
    obs_shape: tuple[int, ...]
    max_steps: int  # of an episode
    reset: Callable  # (keys) -> obs, state
    step: Callable  # (keys, state, action) -> obs, state, reward, done, info


def make_world(setting: Setting, ppo: ModuleType, wrappers: ModuleType) -> World:
    """Network and environment as PureJaxRL's training builds them."""
    env, env_params = gymnax.make(setting.env_id)
    env = wrappers.LogWrapper(wrappers.FlattenObservationWrapper(env))
    return World(
        ppo.ActorCritic(env.action_space(env_params).n, activation=setting.activation),
        env.observation_space(env_params).shape,
        env_params.max_steps_in_episode,
        jax.vmap(lambda key: env.reset(key, env_params)),
        jax.vmap(lambda key, state, action: env.step(key, state, action, env_params)),
    )


def make_rollouts(setting: Setting, world: World, transition: Callable) -> Callable:
    """A function of a key that collects num_updates rollouts with an untrained policy.

    Each step does what PureJaxRL's does: its network, its wrappers, its way of splitting keys,
    its whole Transition stacked. The last rollout travels in the outer carry, which keeps the
    compiler from dropping the arrays that nobody would read.
    """

    def step(params, carry):
        state, obs, key = carry
        key, act_key = jax.random.split(key)
        pi, value = world.network.apply(params, obs)
        action = pi.sample(seed=act_key)
        log_prob = pi.log_prob(action)
        key, env_key = jax.random.split(key)
        env_keys = jax.random.split(env_key, setting.num_envs)
        next_obs, state, reward, done, info = world.step(env_keys, state, action)
        row = transition(done, action, value, reward, log_prob, obs, info)
        return (state, next_obs, key), row

    def rollouts(key):
        key, init_key, reset_key = jax.random.split(key, 3)
        params = world.network.init(init_key, jnp.zeros(world.obs_shape))
        obs, state = world.reset(jax.random.split(reset_key, setting.num_envs))

        def rollout(carry):
            return jax.lax.scan(lambda c, _: step(params, c), carry, None, setting.num_steps)

        def again(carry, _):
            return rollout(carry[0]), None

        start = (state, obs, key)
        shape = jax.eval_shape(rollout, start)[1]
        last = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
        return jax.lax.scan(again, (start, last), None, setting.num_updates)[0]

    return rollouts


def make_evaluate(world: World) -> Callable:
    """A function of parameters and a key: mean return of fresh episodes, actions sampled."""

    def evaluate(params, key):
        reset_key, steps_key = jax.random.split(key)
        obs, state = world.reset(jax.random.split(reset_key, NUM_EVAL_EPISODES))

        def step(carry, key):
            obs, state, alive, total = carry
            act_key, env_key = jax.random.split(key)
            action = world.network.apply(params, obs)[0].sample(seed=act_key)
            env_keys = jax.random.split(env_key, NUM_EVAL_EPISODES)
            obs, state, reward, done, _ = world.step(env_keys, state, action)
            return (obs, state, alive & ~done, total + alive * reward), None

        alive, total = jnp.ones(NUM_EVAL_EPISODES, bool), jnp.zeros(NUM_EVAL_EPISODES)
        keys = jax.random.split(steps_key, world.max_steps)
        (_, _, _, total), _ = jax.lax.scan(step, (obs, state, alive, total), keys)
        return total.mean()

    return evaluate


def xla_threads(setting: Setting) -> str | None:
    """Size of XLA's thread pool on a CPU (NPROC), None where XLA is left to choose.

    Seeds in one program mean a batched QR per layer in the orthogonal initialiser. jaxlib 0.10.2
    runs each on a thread of the pool and has it wait there for more threads of the same pool:
    with fewer threads than layers (6) the program can stop for ever, on two cores it does.
    """
    if setting.num_seeds > 1:
        os.environ.setdefault("NPROC", "8")
    return os.environ.get("NPROC")


def per_seed(setting: Setting, function: Callable, seed: int) -> tuple[Callable, jax.Array]:
    """The function and its key, over as many seeds as the setting has."""
    key = jax.random.PRNGKey(seed)
    if setting.num_seeds == 1:
        return function, key
    return jax.vmap(function), jax.random.split(key, setting.num_seeds)


def main() -> None:
    """Compile, train, evaluate, report."""
    flags = parser(__doc__ or "")
    flags.add_argument("--checkout", type=Path, required=True, help="PureJaxRL's repository")
    args = flags.parse_args()
    setting = chosen(args)
    threads = xla_threads(setting)  # before JAX first looks for its devices
    here = machine(jax.devices()[0].device_kind) | {"xla_threads": threads}
    ppo, wrappers = load(args.checkout)
    world = make_world(setting, ppo, wrappers)
    if setting.rollout_only:
        program = make_rollouts(setting, world, ppo.Transition)
    else:
        program = ppo.make_train(ppo_config(setting))
    timed = compile_and_run(*per_seed(setting, program, args.seed))
    memory = peak_memory_mb()
    final_return = None
    if not setting.rollout_only:
        evaluate, key = per_seed(setting, make_evaluate(world), EVAL_SEED + args.seed)
        params = timed.out["runner_state"][0].params
        final_return = jax.jit(evaluate)(params, key).reshape(-1).tolist()
    emit(
        args,
        program="purejaxrl",
        env_steps=setting.env_steps,
        lower_s=timed.lower_s,
        compile_s=timed.compile_s,
        run_s=timed.run_s,
        peak_memory_mb=memory,
        final_return=final_return,
        versions=versions("jax", "flax", "gymnax", "distrax", "optax", "numpy"),
        machine=here,
    )


if __name__ == "__main__":
    main()
