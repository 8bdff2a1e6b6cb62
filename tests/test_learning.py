"""The promises in the headers of the trainers, held: `pytest -m slow tests/test_learning.py`."""

import numpy as np
import pytest

from train import loop, ppo


@pytest.mark.slow
def test_ppo_with_default_options_solves_cartpole_in_half_a_million_steps(tmp_path):
    args = ppo.Args(num_seeds=10, run_dir=tmp_path / "run")
    assert (args.env, args.algo.total_steps) == ("CartPole-v1", 500_000)
    summary = loop.train(args, ppo.make_task(args))
    per_seed = np.asarray(summary["final_return"]["per_seed"])
    assert per_seed.shape == (10,)
    assert np.sum(per_seed >= 475) >= 9
    assert summary["final_return"]["iqm"] >= 490
    assert summary["run_s"] < 60
