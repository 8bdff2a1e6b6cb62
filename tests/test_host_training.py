"""Training on environments that Python steps: the same learner, what is told, what resumes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import worlds

import jaxrl
from jaxrl import envs
from jaxrl.env import Environment, static, timestep
from jaxrl.spaces import Box, Discrete
from jaxrl.train import arrays, flags, loop, swept, table
from jaxrl.train.devices import choose
from jaxrl.train.host import HostProgram, env_seeds, of_episodes


class JaxPath(Environment):
    """`worlds.Path` in jax."""

    length: int = static(5)
    limit: int = static(7)

    @property
    def observation_space(self):
        return Box(0, 1, (2,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        del key
        state = (jnp.int32(self.length // 2), jnp.int32(0))
        return state, timestep(self._see(*state))

    def step(self, state, action, key):
        del key
        place, t = jnp.maximum(state[0] + jnp.where(action == 1, 1, -1), 0), state[1] + 1
        won = place == self.length - 1
        return (place, t), timestep(self._see(place, t), won, won, (t >= self.limit) & ~won)

    def _see(self, place, t):
        return jnp.stack([place / (self.length - 1), t / self.limit]).astype(jnp.float32)


SMALL = {
    "ppo": ["--algo.num-envs=2", "--algo.num-steps=8", "--algo.num-minibatches=2"],
    "a2c": ["--algo.num-envs=2", "--algo.num-steps=8"],
    "dqn": ["--algo.num-envs=2", "--algo.num-steps=16", "--algo.train-every=8",
            "--algo.gradient-steps=2", "--algo.batch-size=8", "--algo.buffer-size=64",
            "--algo.learning-starts=16"],
    "sac": ["--algo.num-envs=2", "--algo.num-steps=8", "--algo.train-every=4",
            "--algo.batch-size=8", "--algo.buffer-size=64", "--algo.learning-starts=8"],
}  # fmt: skip
REST = ["--algo.hidden", "8", "--algo.total-steps", "64"]


def advanced(name, env_id, iterations, *options):
    """(state, metrics) of a trainer's program after so many iterations."""
    trainer = table.trainer(name)
    args = flags.parse(trainer, ["--env", env_id, *SMALL[name], *REST, *options])
    task = trainer.setup(args)
    program = loop.program_of(task, choose(1, args.num_members, 1, 1))
    members = swept.members_of(args, task.cfg, task.env, name)
    init, run = program.compile(members)
    placed = program.place(members)
    try:
        state, metrics = run(init(placed), placed, program.scalar(iterations))
        return state, jax.tree.map(lambda x: np.asarray(x)[:iterations], metrics)
    finally:
        if task.host is not None:
            task.host.close()


@pytest.mark.parametrize("name", ["ppo", "dqn", "sac"])
def test_the_host_plays_and_learns_what_the_one_program_does(name):
    envs.spec(envs.given(JaxPath()))
    inside, told = advanced(name, envs.given(JaxPath()), 4)
    outside, told_outside = advanced(name, "worlds:Path", 4, "--actors.no-overlap")
    a, b = (algorithm_policy(name, state) for state in (inside, outside))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    for metric in ("episode_return", "episode_length", "episodes"):
        np.testing.assert_array_equal(told[metric].numerator, told_outside[metric].numerator)
    assert told_outside["episodes"].numerator.sum() > 0
    loss = {"ppo": "loss", "dqn": "td_error", "sac": "q_loss"}[name]
    np.testing.assert_allclose(told[loss].numerator, told_outside[loss].numerator, rtol=1e-3)


def algorithm_policy(name, state):
    return {"ppo": lambda: state.policy, "dqn": lambda: state.network,
            "sac": lambda: state.learner.trained}[name]()  # fmt: skip


def test_sampler_and_learner_agree_and_overlap_is_one_rollout_behind():
    _, fresh = advanced("ppo", "worlds:Path", 3, "--actors.no-overlap")
    _, behind = advanced("ppo", "worlds:Path", 3)
    assert fresh["first_ratio_error"].numerator.max() < 1e-5
    late = behind["first_ratio_error"].numerator[:, 0]
    assert late[0] < 1e-5 and late[1:].min() > 1e-5


def test_what_is_learned_does_not_depend_on_how_a_run_is_cut_into_chunks_or_on_processes():
    one, _ = advanced("ppo", "worlds:Path", 4, "--actors.processes=1")
    two, _ = advanced("ppo", "worlds:Path", 4, "--actors.processes=2")
    for x, y in zip(jax.tree.leaves(one.policy), jax.tree.leaves(two.policy), strict=True):
        np.testing.assert_array_equal(x, y)


def test_members_are_played_side_by_side_with_environments_of_their_own():
    state, metrics = advanced("a2c", "worlds:Path", 2, "--num-seeds=3")
    assert metrics["episodes"].numerator.shape == (2, 3)
    first, second, _ = np.asarray(jax.tree.leaves(state.policy)[0])
    assert (first != second).any()


def test_metrics_are_means_over_the_episodes_of_a_member():
    episodes = [(0, {"episode_return": 1.0, "episode_length": 2.0}),
                (1, {"episode_return": 3.0, "episode_length": 4.0, "success": 1.0}),
                (5, {"episode_return": 7.0, "episode_length": 1.0, "success": 0.0})]  # fmt: skip
    found = of_episodes(episodes, (3, 2))
    assert found["episode_return"].numerator.tolist() == [4, 0, 7]
    assert found["episode_return"].denominator.tolist() == [2, 0, 1]
    assert found["success"].denominator.tolist() == [1, 0, 1]
    assert found["episodes"].numerator.tolist() == [2, 0, 1]


def test_environments_of_seeds_starts_and_places_are_told_apart():
    seeds = [*env_seeds([0, 1], 0, 3), *env_seeds([0], 5, 3)]
    assert len(set(seeds)) == 9 and env_seeds([0, 1], 0, 3) == seeds[:6]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_class_is_trained_from_python_stopped_and_goes_on(tmp_path):
    how = dict(env=worlds.Path, quiet=True, hidden=(8,), num_envs=2, num_steps=16, eval_episodes=4)
    how |= {"num_minibatches": 2, "total_steps": 32 * 12}
    run = tmp_path / "run"
    first = jaxrl.train("ppo", run_dir=run, callback=lambda chunk: True, **how)
    assert first.summary["stopped_at"] < 12
    saved = jax.tree.leaves(first.policy)
    iterations = []

    def note(chunk):
        iterations.append(chunk.iteration)

    second = jaxrl.train(
        "ppo", resume=run, env=worlds.Path, quiet=True, callback=note, eval_episodes=4
    )
    assert min(iterations) > first.summary["stopped_at"] and max(iterations) == 12
    assert any((x != y).any() for x, y in zip(saved, jax.tree.leaves(second.policy), strict=True))
    told = json.loads((run / "summary.json").read_text())
    assert told["worlds"]["resume"].startswith("the learner exactly; environments begin new")
    assert told["final_return"]["episodes_per_seed"] == 4
    assert "success" in told["final_return"]["metrics"]


def test_a_run_with_a_process_that_dies_counts_the_episode_and_goes_on(tmp_path):
    result = jaxrl.train(
        "ppo", env="worlds:Mortal", env_args=(f"folder={tmp_path}", "at=9"), quiet=True,
        hidden=(8,), num_envs=2, num_steps=16, num_minibatches=2, total_steps=96, eval_episodes=2,
    )  # fmt: skip
    lost = result.metrics["lost_episodes"].sum()
    assert (tmp_path / "died").exists() and lost >= 1
    assert result.summary["env_steps"] == 96
    lengths = result.metrics["episode_length"]
    assert np.nanmin(lengths) == 9, "a lost episode is none that ended"


@pytest.mark.parametrize(
    "trainer, options, words",
    [
        ("pqn", {}, "train.pqn does not serve; try train.ppo"),
        ("ppo", {"eval_every": 1}, "eval_every=1 evaluates inside the program"),
        ("ppo", {"env_args": ("length=none", "x=1")}, "unexpected keyword argument 'x'"),
        ("ppo", {"env": worlds.Path()}, "Path.* is one environment, and workers need several"),
    ],
)
def test_what_the_host_cannot_do_is_refused_in_one_line(trainer, options, words):
    with pytest.raises(ValueError, match=words) as said:
        jaxrl.train(trainer, **({"env": "worlds:Path"} | options), quiet=True)
    assert "\n" not in str(said.value)


def test_a_chunk_is_told_of_before_the_next_one_is_played(monkeypatch):
    """Or the second of two that are told of at once would seem to take no time at all."""
    events = []
    for owner, name in ((HostProgram, "run"), (loop.Run, "record")):
        own = getattr(owner, name)
        wrapped = lambda *args, own=own, name=name: (events.append(name), own(*args))[1]  # noqa: E731
        monkeypatch.setattr(owner, name, wrapped)
    jaxrl.train(
        "ppo", env=worlds.Path, quiet=True, hidden=(8,), num_envs=2, num_steps=16,
        num_minibatches=2, total_steps=32 * 4, eval_episodes=2, checkpoint_every=1e-3,
    )  # fmt: skip
    assert events == ["run", "record"] * 4


def test_options_of_actors_are_checked():
    with pytest.raises(ValueError, match=r"actors.deadline=0.0 must be a finite number above 0"):
        arrays.Actors(deadline=0.0)
    with pytest.raises(ValueError, match="processes=-1"):
        arrays.Actors(processes=-1)
