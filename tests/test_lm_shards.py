"""A model split over devices: the parts make the whole, sums and norms are those of the whole."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrl.lm.learn.agent import State, load_weights
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.params import Params, zero_critic
from jaxrl.lm.model.shards import Layout, part_of, split_axis, state_specs
from jaxrl.lm.model.transformer import Transformer
from jaxrl.mesh import make_mesh
from jaxrl.policy import named_leaves


def whole():
    return {
        "large": jnp.sin(jnp.arange(8 * 1024.0)).reshape(8, 1024),
        "odd": jnp.cos(jnp.arange(7 * 999.0)).reshape(7, 999),
        "small": jnp.arange(16.0),
    }


def on_four(f, *args, out=None):
    mesh = make_mesh(1, jax.devices()[:4])
    specs = state_specs(jax.eval_shape(whole), 4)
    specs = jax.tree.map(lambda s: P(*s[1:]), specs, is_leaf=lambda x: isinstance(x, P))
    out = specs if out is None else out
    mapped = jax.shard_map(
        f, mesh=mesh, in_specs=tuple(P() for _ in args), out_specs=out, check_vma=False
    )
    return jax.jit(mapped)(*args)


def layout():
    return Layout(jax.eval_shape(whole), "data")


def test_the_largest_axis_that_divides_is_split_and_small_arrays_are_not():
    assert split_axis((8, 1024), 4) == 1
    assert split_axis((4096, 4096), 4) == 0
    assert split_axis((7, 999), 4) == -1
    assert split_axis((16,), 4) == -1
    assert split_axis((8, 1024), 1) == -1
    specs = state_specs(jax.eval_shape(whole), 4)
    assert specs["large"] == P("seed", None, "data") and specs["odd"] == P("seed")


def test_parts_gathered_are_the_whole_again():
    parts = on_four(lambda x: part_of(x, "data"), whole())
    assert parts["large"].addressable_shards[0].data.shape == (8, 256)
    again = on_four(lambda x: layout().gather(part_of(x, "data")), whole(), out=P())
    jax.tree.map(np.testing.assert_array_equal, again, whole())


def test_a_sum_over_devices_is_split_as_the_model_is_and_its_norm_is_the_wholes():
    def summed(x):
        scaled = jax.tree.map(lambda x: x * (1.0 + jax.lax.axis_index("data")), x)
        total, count = layout().sum(scaled, jnp.ones(()))
        both = Params(total, total)  # pyright: ignore
        norms = Layout(jax.eval_shape(lambda: Params(whole(), whole())), "data").norms(both)
        return total, (norms.policy, norms.critic), count

    specs = on_four(lambda x: part_of(x, "data"), whole())
    out = (jax.tree.map(lambda x: x.sharding.spec, specs), P(), P())
    total, norm, count = on_four(summed, whole(), out=out)
    expected = jax.tree.map(lambda x: 10.0 * x, whole())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), total, expected)
    np.testing.assert_allclose(norm, [optax.tree.norm(expected)] * 2, rtol=1e-5)
    assert count == 4


def test_a_model_that_is_not_split_passes_through():
    tree = {"x": jnp.ones(3)}
    plain = Layout(None, None)
    assert plain.gather(tree) is tree and plain.sum(tree, ()) == (tree, ())
    norms = plain.norms(Params(tree))  # pyright: ignore
    np.testing.assert_allclose(norms.policy, 3**0.5, rtol=1e-6)
    assert norms.critic is None


def test_given_weights_fill_a_split_state_and_its_reference_but_no_adapters():
    mesh = make_mesh(2, jax.devices()[:4])  # two seeds, each over two devices
    plain = replace(preset("nano", 260), num_layers=1)
    given = jax.tree.map(np.asarray, Transformer(plain, nnx.Rngs(7)))
    fresh = Transformer(replace(plain, lora_rank=2), nnx.Rngs(0))
    specs = state_specs(fresh, 2)

    def laid_out(model):
        return jax.tree.map(
            lambda x, spec: jax.device_put(jnp.stack([x, x]), NamedSharding(mesh, spec)),
            model,
            specs,
        )

    params = Params(laid_out(fresh), zero_critic(4))
    state = State(params, (), params, None, jnp.zeros(2))  # pyright: ignore
    filled = load_weights(state, named_leaves(given))
    known, before = named_leaves(given), named_leaves(params.policy)
    for name, x in named_leaves(filled.params.policy).items():
        want = np.stack([known[name]] * 2) if name in known else before[name]
        np.testing.assert_array_equal(x, want)
        assert x.sharding == before[name].sharding, name
    assert (
        sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(filled.params.policy)) > 3
    )
    np.testing.assert_array_equal(filled.reference.policy.embed[...][1], given.embed[...])
    assert filled.params.critic is params.critic
