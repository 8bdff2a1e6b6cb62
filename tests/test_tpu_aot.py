"""The whole program for a TPU pod of 16 chips, compiled on a machine that has none.

Needs libtpu, in the extra `tpu`. Run with `pytest -m slow -s tests/test_tpu_aot.py` to see what
the compiler says of memory and collectives.
"""

import importlib.util

import pytest

from train import aot, flags, ppo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed: pip install 'jaxrl[tpu]'",
    ),
]

HBM = 16e9  # bytes of a v5e chip
POD = ("--env", "CartPole-v1", "--num-envs", "4096", "--algo.num-minibatches", "16")


def compiled(*argv, topology=aot.TOPOLOGY):
    args = flags.parse(ppo.TRAINER, flags.full_names([*POD, *argv]))
    made = aot.compile_for(topology, ppo.setup(args), args.num_seeds)
    print(f"\n{args.num_seeds} seed(s) on {topology}\n{aot.report(made)}")
    return made


def test_one_seed_on_sixteen_chips_fits_and_only_sums_gradients_and_metrics():
    made = compiled("--algo.normalize-obs", "--algo.normalize-reward")
    assert aot.memory(made)["total"] < HBM
    assert set(aot.collectives(made.as_text())) == {"all-reduce"}
    assert aot.host_calls(made.as_text()) == []


def test_sixteen_seeds_on_sixteen_chips_never_talk():
    made = compiled("--num-seeds", "16")
    assert aot.memory(made)["total"] < HBM
    assert not aot.collectives(made.as_text()) and aot.host_calls(made.as_text()) == []


def test_a_topology_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"topology=v5e:5x5 cannot be compiled for"):
        compiled(topology="v5e:5x5")
