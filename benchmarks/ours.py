"""jaxrl on one of the settings, through the same program and devices that `train.ppo` uses."""

import sys
from functools import partial
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import envs
from benchmarks.record import chosen, emit, machine, parser, peak_memory_mb, versions
from benchmarks.settings import EVAL_SEED, NUM_EVAL_EPISODES, Setting
from jaxrl import on_policy
from jaxrl.algos import ppo
from jaxrl.distributions import noise
from jaxrl.program import members
from jaxrl.resets import fill_all
from jaxrl.rollout import begin, rollout
from train.devices import Distributed, choose, join
from train.loop import program_of
from train.ppo import Args, setup


def config(setting: Setting) -> ppo.Config:
    """The setting as PPO's options; iterations are rounded down, as the peers do."""
    rows = setting.num_envs * setting.num_steps
    return ppo.Config(
        total_steps=setting.num_updates * rows,
        num_envs=setting.num_envs,
        num_steps=setting.num_steps,
        num_epochs=setting.num_epochs,
        num_minibatches=setting.num_minibatches,
        learning_rate=setting.lr,
        gamma=setting.gamma,
        gae_lambda=setting.gae_lambda,
        clip_eps=setting.clip_eps,
        value_clip=setting.clip_eps,
        value_coef=setting.vf_coef,
        entropy_coef=setting.ent_coef,
        max_grad_norm=setting.max_grad_norm,
        hidden=setting.hidden,
        activation=setting.activation,
    )


def mesh_for(setting: Setting, num_devices: int) -> Mesh:
    """The devices that train.ppo would take (0), or a number of them."""
    cfg = config(setting)
    return choose(num_devices, setting.num_seeds, cfg.num_blocks, cfg.minibatch_rows)


def train(args, setting: Setting) -> None:
    """Compile without a cache, train, evaluate, print the record."""
    options = Args(env=setting.env_id, algo=config(setting))
    task, mesh = setup(options), mesh_for(setting, args.devices)
    trained = members(range(args.seed, args.seed + setting.num_seeds), task.cfg, task.env)
    start = perf_counter()
    program = program_of(task, mesh)
    init, run = program.compile(trained)
    compile_s = perf_counter() - start
    placed = program.place(trained)
    start = perf_counter()
    state, done = init(placed), 0
    while done < task.num_iterations:
        count = min(program.max_count, task.num_iterations - done)
        state, metrics = run(state, placed, program.scalar(count))
        done += count
    jax.block_until_ready(metrics)
    run_s = perf_counter() - start
    policies = jax.tree.map(np.asarray, task.outcome.trained(state))
    players = trained.replace(seed=trained.seed + np.uint32(EVAL_SEED))
    final = task.outcome.evaluate(policies, players, NUM_EVAL_EPISODES)
    report(args, setting, mesh, compile_s, run_s, final["per_seed"])


def play(args, setting: Setting) -> None:
    """Rollouts only, with the untrained policy; the transitions stay alive, so none is dropped."""
    cfg = config(setting)
    env, mesh = ppo.wrap(envs.make(setting.env_id), cfg), mesh_for(setting, args.devices)
    local = setting.num_envs // mesh.devices.size

    def played(key):
        policy = ppo.make_policy(key, cfg=cfg, env=env)
        index = jax.lax.axis_index("data") * local + jnp.arange(local)
        carry = begin(env, key, index)
        draw = partial(noise, env.action_space)
        act = partial(on_policy.act, policy, None)

        def body(i, carried):
            pool_key, play_key = jax.random.split(jax.random.fold_in(key, i))
            pool = fill_all(env, pool_key, index, max(2, setting.num_steps // 8))
            carry, _, steps, ended = rollout(
                env, carried[0], pool, act, draw, play_key, index, setting.num_steps
            )
            return carry, steps, ended

        return jax.lax.fori_loop(1, setting.num_updates, body, body(0, (carry, None, None)))

    data = jax.sharding.PartitionSpec("data")
    specs = (data, jax.sharding.PartitionSpec(None, "data"), data)
    sharded = jax.shard_map(
        played, mesh=mesh, in_specs=jax.sharding.PartitionSpec(), out_specs=specs, check_vma=False
    )
    start = perf_counter()
    compiled = jax.jit(sharded).lower(jax.random.key(args.seed)).compile()
    compile_s = perf_counter() - start
    key = jax.random.key(args.seed)
    start = perf_counter()
    jax.block_until_ready(compiled(key))
    report(args, setting, mesh, compile_s, perf_counter() - start, None)


def report(args, setting, mesh, compile_s, run_s, final) -> None:
    emit(
        args,
        program="jaxrl",
        env_steps=setting.env_steps,
        lower_s=None,
        compile_s=compile_s,
        run_s=run_s,
        final_return=final,
        peak_memory_mb=peak_memory_mb(),
        versions=versions("jaxrl", "jax", "jaxlib", "flax", "optax"),
        machine=machine(f"{mesh.devices.size} x {jax.devices()[0].platform}"),
    )


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--devices", type=int, default=0, help="0: as train.ppo chooses")
    flags.add_argument("--cache", type=Path, help="a compilation cache to use; default none")
    args = flags.parse_args()
    if args.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(args.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    else:
        jax.config.update("jax_enable_compilation_cache", False)
    join(Distributed())
    setting = chosen(args)
    play(args, setting) if setting.rollout_only else train(args, setting)


if __name__ == "__main__":
    main()
