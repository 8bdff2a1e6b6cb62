"""The single program: K seeds of one algorithm, many iterations, one executable on a mesh."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.mesh import DATA, SEED

Init = Callable[..., Any]  # (key, *, axis) -> state
Update = Callable[..., tuple[Any, dict[str, jax.Array]]]  # (state, key, *, axis) -> state, metrics


def seed_keys(seed: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(init, train, evaluation) keys of one seed: the root of every random number in a run."""
    init_key, train_key, evaluation_key = jax.random.split(jax.random.key(seed), 3)
    return init_key, train_key, evaluation_key


# XLA options on a CPU. The init program runs once, so it is not optimised. The training program is
# one sequence for one core, its matrix products too: its operations are too small to share
# (docs/decisions/003). LLVM's first level of optimisation runs as fast as its third and compiles in
# three quarters of the time.
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
ONE_CORE = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_backend_optimization_level": 1,
    "xla_cpu_multi_thread_eigen": False,
}


class Program(flax.struct.PyTreeNode):
    """`init(seeds)` gives the state; `run(state, seeds, count)` advances it by `count` iterations.

    Everything is stacked over seeds [K, ...] and laid out on the mesh: seeds over its first axis,
    each seed's environments over its second. `run` returns (state, metrics), where metrics have
    leaves [max_count, K] of which the first `count` are filled. Both are jitted, not compiled.
    """

    init: Callable = flax.struct.field(pytree_node=False)
    run: Callable = flax.struct.field(pytree_node=False)
    mesh: Mesh = flax.struct.field(pytree_node=False)
    max_count: int = flax.struct.field(pytree_node=False)
    specs: Any = flax.struct.field(pytree_node=False)

    def abstract(self, num_seeds: int) -> tuple[Any, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """(state, seeds, count): what `run` takes, as shapes laid out on the mesh."""

        def on_mesh(x, spec):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(self.mesh, spec))

        seeds = on_mesh(jax.ShapeDtypeStruct((num_seeds,), np.uint32), P(SEED))
        shapes = jax.eval_shape(self.init, seeds)
        state = jax.tree.map(
            lambda spec, part: jax.tree.map(lambda x: on_mesh(x, spec), part), self.specs, shapes
        )
        return state, seeds, on_mesh(jax.ShapeDtypeStruct((), np.int32), P())

    def compile(self, num_seeds: int) -> tuple[Callable, Callable]:
        """(init, run) compiled ahead of time, side by side; `run` donates its state."""
        state, seeds, count = self.abstract(num_seeds)
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        init = self.init.lower(seeds)
        with ThreadPoolExecutor(1) as pool:
            initialised = pool.submit(init.compile, QUICK_TO_COMPILE if on_cpu else None)
            run = self.run.lower(state, seeds, count).compile(ONE_CORE if on_cpu else None)
            return initialised.result(), run

    def seeds(self, first: int, count: int) -> jax.Array:
        """uint32 [count]: consecutive seeds, placed on the mesh."""
        values = np.arange(first, first + count, dtype=np.uint32)
        sharding = NamedSharding(self.mesh, P(SEED))
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    def scalar(self, value: int) -> jax.Array:
        """int32 [], the same on every device."""
        sharding = NamedSharding(self.mesh, P())
        return jax.make_array_from_callback((), sharding, lambda _: np.asarray(value, np.int32))


def make_program(
    init: Init,
    update: Update,
    specs: Any,
    mesh: Mesh,
    max_count: int = 1024,
    one_by_one: bool = False,
) -> Program:
    """Build the program from an algorithm's pure functions of one seed.

    `specs` is the state's layout, a prefix pytree of PartitionSpec, or a function that gives it for
    a number of devices of each seed. `update` reads its iteration
    from `state.iteration`. The number of iterations is a run-time number: one executable serves
    chunks of any length, so that results cannot depend on how a run was cut into chunks.
    A device's seeds are vmapped, or with `one_by_one` looped over: what branches or ends early
    then does so for each seed.
    """
    axis = DATA if mesh.shape[DATA] > 1 else None
    if callable(specs):
        specs = specs(mesh.shape[DATA])

    def init_seeds(seeds):
        # One seed after the other: batched QR factorisations (the orthogonal initialiser) can
        # deadlock in XLA's CPU thread pool, jaxlib 0.10.2.
        return jax.lax.map(lambda seed: init(seed_keys(seed)[0], axis=axis), seeds)

    def iterate(state, seed):
        key = jax.random.fold_in(seed_keys(seed)[1], state.iteration)
        return update(state, key, axis=axis)

    # The inner jit makes eval_shape and the loop share one trace.
    iterate_seeds = jax.jit(over_seeds(iterate, one_by_one))

    def run(state, seeds, count):
        def body(i, carry):
            state, log = carry
            state, metrics = iterate_seeds(state, seeds)
            return state, {name: log[name].at[i].set(metrics[name]) for name in log}

        _, shapes = jax.eval_shape(iterate_seeds, state, seeds)
        log = {name: jnp.zeros((max_count, *x.shape), x.dtype) for name, x in shapes.items()}
        return jax.lax.fori_loop(0, count, body, (state, log))

    def on_mesh(f, in_specs, out_specs, **jit_options):
        mapped = jax.shard_map(
            f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        return jax.jit(mapped, **jit_options)

    return Program(
        init=on_mesh(init_seeds, P(SEED), specs),
        run=on_mesh(run, (specs, P(SEED), P()), (specs, P(None, SEED)), donate_argnums=0),
        mesh=mesh,
        max_count=max_count,
        specs=specs,
    )


def over_seeds(f: Callable, one_by_one: bool = False) -> Callable:
    """f over a leading axis of seeds; without a batch axis where there is only one."""

    def mapped(*args):
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.lax.map(lambda one: f(*one), args) if one_by_one else jax.vmap(f)(*args)
        out = f(*jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], out)

    return mapped
