"""The single program: K members of one algorithm, many iterations, one executable on a mesh."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.mesh import DATA, SEED
from jaxrl.metrics import Metrics


class Member(flax.struct.PyTreeNode):
    """What tells one of the runs in a program from the others: its numbers, all of them leaves.

    Seeds, hyperparameters and physics are one dimension [K] of the program. What is structure in
    `cfg` and `env` (a size, a choice) is shared by all members.
    """

    seed: Any  # uint32 []
    cfg: Any
    env: Any


Init = Callable[..., Any]  # (key, member, axis) -> state
Update = Callable[..., tuple[Any, Metrics]]  # (state, key, member, axis) -> state, metrics
Look = Callable[..., tuple[Any, Metrics]]  # (states, members, axis) -> states, metrics; of K


def members(seeds: Sequence[int], cfg: Any, env: Any) -> Member:
    """One member for each seed, leaves [K] on the host, with the same numbers in all of them."""
    return stack([Member(np.uint32(seed), cfg, env) for seed in seeds])


def stack(members: Sequence[Member]) -> Member:
    """Leaves [K]; ValueError where the members' structures differ, and with it the program."""
    structure = jax.tree.structure(members[0])
    if any(jax.tree.structure(member) != structure for member in members):
        raise ValueError("members of one program differ in numbers alone, not in sizes or choices.")
    return jax.tree.map(lambda *x: np.stack([_number(one) for one in x]), *members)


def _number(x: Any) -> np.ndarray:
    """A leaf as an array of 32 bits."""
    array = np.asarray(x)
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return array.astype(narrow.get(array.dtype, array.dtype))


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
    """`init(members)` gives the state; `run(state, members, count)` advances it by `count`.

    Everything is stacked over members [K, ...] and laid out on the mesh: members over its first
    axis, each member's environments over its second. `run` returns (state, metrics), where metrics
    are Sums with leaves [max_count, K] of which the first `count` are filled. Both are jitted, not
    compiled.
    """

    init: Callable = flax.struct.field(pytree_node=False)
    run: Callable = flax.struct.field(pytree_node=False)
    mesh: Mesh = flax.struct.field(pytree_node=False)
    max_count: int = flax.struct.field(pytree_node=False)
    layout: Any = flax.struct.field(pytree_node=False)

    def abstract(self, members: Member) -> tuple[Any, Member, jax.ShapeDtypeStruct]:
        """(state, members, count): what `run` takes, as shapes laid out on the mesh."""

        def on_mesh(x, spec):
            spec = spec if x.size else P()  # what XLA says of an array of no numbers
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(self.mesh, spec))

        members = jax.tree.map(lambda x: on_mesh(x, P(SEED)), members)
        shapes = jax.eval_shape(self.init, members)
        state = jax.tree.map(
            lambda spec, part: jax.tree.map(lambda x: on_mesh(x, spec), part), self.layout, shapes
        )
        return state, members, on_mesh(jax.ShapeDtypeStruct((), np.int32), P())

    def compile(self, members: Member, one_core: bool = True) -> tuple[Callable, Callable]:
        """(init, run) compiled ahead of time, side by side; `run` donates its state.

        On a CPU a device computes on one core, or else on all of them.
        """
        state, members, count = self.abstract(members)
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        init = self.init.lower(members)
        with ThreadPoolExecutor(1) as pool:
            initialised = pool.submit(init.compile, QUICK_TO_COMPILE if on_cpu else None)
            options = ONE_CORE if on_cpu and one_core else None
            run = self.run.lower(state, members, count).compile(options)
            return initialised.result(), run

    def place(self, members: Member) -> Member:
        """Members with leaves [K] on the host, placed on the mesh."""
        sharding = NamedSharding(self.mesh, P(SEED))

        def put(x):
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(put, members)

    def scalar(self, value: int) -> jax.Array:
        """int32 [], the same on every device."""
        sharding = NamedSharding(self.mesh, P())
        return jax.make_array_from_callback((), sharding, lambda _: np.asarray(value, np.int32))


def make_program(
    init: Init,
    update: Update,
    layout: Any,
    mesh: Mesh,
    max_count: int = 1024,
    one_by_one: bool = False,
    look: Look | None = None,
) -> Program:
    """Build the program from an algorithm's pure functions of one member.

    `layout` is the state's on a mesh, a prefix pytree of PartitionSpec, or a function that gives it
    for a number of devices of each member. `update` reads its iteration from `state.iteration`.
    The number of iterations is a run-time number: one executable serves chunks of any length, so
    that results cannot depend on how a run was cut into chunks. So are the members' numbers.
    A device's members are vmapped, or with `one_by_one` looped over: what branches or ends early
    then does so for each of them. `look` sees all of a device's members after each iteration.
    """
    axis = DATA if mesh.shape[DATA] > 1 else None
    if callable(layout):
        layout = layout(mesh.shape[DATA])

    def init_members(members):
        # One after the other: batched QR factorisations (the orthogonal initialiser) can deadlock
        # in XLA's CPU thread pool, jaxlib 0.10.2.
        return jax.lax.map(lambda one: init(seed_keys(one.seed)[0], one, axis=axis), members)

    def iterate(state, member):
        key = jax.random.fold_in(seed_keys(member.seed)[1], state.iteration)
        return update(state, key, member, axis=axis)

    # The inner jit makes eval_shape and the loop share one trace.
    iterate_all = jax.jit(looked_at(over_members(iterate, one_by_one), look, axis))

    def run(state, members, count):
        def body(i, carry):
            state, log = carry
            state, metrics = iterate_all(state, members)
            return state, jax.tree.map(lambda kept, x: kept.at[i].set(x), log, metrics)

        _, shapes = jax.eval_shape(iterate_all, state, members)
        log = jax.tree.map(lambda x: jnp.zeros((max_count, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, log))

    def on_mesh(f, in_specs, out_specs, **jit_options):
        mapped = jax.shard_map(
            f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )
        return jax.jit(mapped, **jit_options)

    return Program(
        init=on_mesh(init_members, P(SEED), layout),
        run=on_mesh(run, (layout, P(SEED), P()), (layout, P(None, SEED)), donate_argnums=0),
        mesh=mesh,
        max_count=max_count,
        layout=layout,
    )


def looked_at(update_all: Callable, look: Look | None, axis: str | None) -> Callable:
    """An update of all of a device's members, and what `look` sees of them afterwards."""
    if look is None:
        return update_all

    def update_and_look(state, members):
        state, metrics = update_all(state, members)
        state, seen = look(state, members, axis=axis)
        return state, metrics | seen

    return update_and_look


def over_members(f: Callable, one_by_one: bool = False) -> Callable:
    """f over a leading axis of members; without a batch axis where there is only one."""

    def mapped(*args):
        if jax.tree.leaves(args)[0].shape[0] > 1:
            return jax.lax.map(lambda one: f(*one), args) if one_by_one else jax.vmap(f)(*args)
        out = f(*jax.tree.map(lambda x: x[0], args))
        return jax.tree.map(lambda x: x[None], out)

    return mapped
