"""Host environments on a Ray cluster of several nodes, one of which dies in the middle of a run."""

import os
from pathlib import Path

import numpy as np
import pytest

import jaxrl

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'jaxrl[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture
def cluster(monkeypatch):
    """A head without room for actors, and two nodes with room for both of a run's."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent) + os.pathsep + os.getcwd())
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield nodes, [nodes.add_node(num_cpus=2) for _ in range(2)]
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_a_run_goes_on_when_a_node_is_lost(cluster):
    nodes, (first, _) = cluster
    killed = []

    def kill(chunk):
        if not killed and chunk.iteration >= 4:
            killed.append(chunk.iteration)
            nodes.remove_node(first, allow_graceful=False)

    result = jaxrl.train(
        "ppo", env="worlds:Path", actors={"ray": nodes.address, "processes": 2, "deadline": 60.0},
        quiet=True, callback=kill, hidden=(8,), num_envs=4, num_steps=16, num_minibatches=2,
        total_steps=64 * 40, eval_episodes=4,
    )  # fmt: skip
    assert killed and result.summary["env_steps"] == 64 * 40
    assert result.metrics["lost_episodes"].sum() >= 1
    assert np.nanmin(result.metrics["episode_return"]) >= 0


def test_no_cluster_is_told_in_one_line():
    with pytest.raises(ValueError, match=r"actors.ray=127.0.0.1:1 could not be joined"):
        jaxrl.train("ppo", env="worlds:Path", actors={"ray": "127.0.0.1:1"}, quiet=True)
