"""Return over a grid of physics, with and without randomisation: `python benchmarks/physics.py`.

Trains the same seeds twice, in the environment as it is and in one whose numbers are drawn at every
reset, then plays both over a grid of numbers that reaches beyond those drawn. All policies and all
cells of the grid are one program. Writes a table, GRID.json and GRID.png into --out.
`--speed` compares instead what drawing costs: steps/s of random play, in one process.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

import jaxrl
from benchmarks.record import machine, versions
from jaxrl import envs
from jaxrl.evaluate import evaluate
from jaxrl.physics import with_numbers
from jaxrl.train import physics
from jaxrl.train.ppo import Args


@dataclass(frozen=True)
class Setting:
    """What is trained, and where it is played."""

    env: str
    trainer: str
    options: dict[str, Any]
    drawn: tuple[str, ...]
    rows: tuple[str, tuple[float, ...]]  # a field and its values
    columns: tuple[str, tuple[float, ...]]
    label: str  # of what is shown


SETTINGS = {
    "pendulum": Setting(
        env="Pendulum-v1",
        trainer="ppo",
        options={"preset": "continuous", "total_steps": 500_000},
        drawn=("mass=loguniform:0.35:1.4", "length=loguniform:0.35:1.4"),
        rows=("mass", (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)),
        columns=("length", (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)),
        label="return",
    ),
    "inverted-pendulum": Setting(
        env="brax/inverted_pendulum",
        trainer="sac",
        options={"total_steps": 20_000},
        drawn=("mass=loguniform:0.25:4", "motor_strength=loguniform:0.25:4"),
        rows=("mass", (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)),
        columns=("motor_strength", (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)),
        label="return",
    ),
}


def over_grid(policies: Any, setting: Setting, episodes: int) -> np.ndarray:
    """Mean returns [K, rows, columns] of K policies; every cell begins in the same states."""
    env = envs.make(setting.env)
    names = setting.rows[0], setting.columns[0]
    grid = np.meshgrid(setting.rows[1], setting.columns[1], indexing="ij")
    cells = np.float32(np.stack(grid, -1).reshape(-1, 2))

    def play(policy, cell):
        other = with_numbers(env, dict(zip(names, cell, strict=True)))
        key = jax.random.key(1_000_000)
        played = evaluate(policy.step, other, key, episodes, memory=policy.begin())
        return played.episode_return.mean()

    every = jax.jit(jax.vmap(jax.vmap(play, (None, 0)), (0, None)))
    return np.asarray(every(policies, cells)).reshape(-1, *grid[0].shape)


def compare(name: str, seeds: int, episodes: int, steps: int | None, out: Path) -> None:
    setting = SETTINGS[name]
    options = setting.options | ({} if steps is None else {"total_steps": steps})
    found, seconds = {}, {}
    for way, drawn in (("fixed", ()), ("randomised", setting.drawn)):
        result = jaxrl.train(
            setting.trainer, env=setting.env, num_seeds=seeds, randomise=drawn, **options
        )
        begin = perf_counter()
        found[way] = over_grid(result.policies, setting, episodes)
        seconds[way] = {"run_s": result.summary["run_s"], "grid_s": perf_counter() - begin}
    record = {
        "setting": name,
        "env": setting.env,
        "trainer": setting.trainer,
        "options": options,
        "num_seeds": seeds,
        "randomise": setting.drawn,
        "rows": setting.rows,
        "columns": setting.columns,
        "episodes": episodes,
        "return": {way: x.tolist() for way, x in found.items()},  # [seed, row, column]
        "seconds": seconds,
        "versions": versions("jaxrl", "jax", "jaxlib"),
        "machine": machine(f"{len(jax.devices())} x {jax.devices()[0].platform}"),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record) + "\n")
    show(setting, found)
    draw(setting, {way: x.mean(0) for way, x in found.items()}, seeds, out / f"{name}.png")


def show(setting: Setting, found: dict[str, np.ndarray]) -> None:
    """The means over seeds as a table, and of the cells that training drew and of the rest."""
    for way, x in found.items():
        print(f"{way}: {setting.rows[0]} down, {setting.columns[0]} across")
        print("        " + " ".join(f"{c:>7g}" for c in setting.columns[1]))
        for value, row in zip(setting.rows[1], x.mean(0), strict=True):
            print(f"{value:>7g} " + " ".join(f"{cell:>7.0f}" for cell in row))
        inside = seen(setting)
        per_seed = [[one[part].mean() for one in x] for part in (inside, ~inside)]
        words = [f"{np.mean(one):.0f} (seeds {np.round(one).tolist()})" for one in per_seed]
        print(f"mean of the cells drawn in training: {words[0]}; beyond them: {words[1]}")


def seen(setting: Setting) -> np.ndarray:
    """bool [rows, columns]: whether training with randomisation drew such numbers."""
    ends = {
        name: (min(values), max(values))
        for name, (_, values) in physics.parse(setting.drawn).items()
    }
    within = [
        np.array([ends[name][0] <= x <= ends[name][1] for x in values])
        for name, values in (setting.rows, setting.columns)
    ]
    return np.logical_and.outer(*within)


def draw(setting: Setting, found: dict[str, np.ndarray], seeds: int, path: Path) -> None:
    """Both grids as heat maps with one scale; the frame holds what training drew."""
    figure = matplotlib.figure.Figure(figsize=(10.5, 4.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    low, high = (f([x.min() if f is min else x.max() for x in found.values()]) for f in (min, max))
    inside = np.argwhere(seen(setting))
    (top, left), (bottom, right) = inside.min(0) - 0.5, inside.max(0) + 0.5
    for axes, (way, x) in zip(panels, found.items(), strict=True):
        image = axes.imshow(x, vmin=low, vmax=high, cmap="viridis", origin="lower")
        for i, j in np.ndindex(x.shape):
            light = (x[i, j] - low) / max(high - low, 1e-9) > 0.6
            color = "black" if light else "white"
            axes.text(j, i, f"{x[i, j]:.0f}", ha="center", va="center", color=color, fontsize=8)
        if way == "randomised":
            corners = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axes.plot(*corners, color="#cc3311", linewidth=2)
        axes.set_xticks(range(len(setting.columns[1])), [f"{v:g}" for v in setting.columns[1]])
        axes.set_yticks(range(len(setting.rows[1])), [f"{v:g}" for v in setting.rows[1]])
        axes.set(xlabel=setting.columns[0], ylabel=setting.rows[0], title=f"trained {way}")
    figure.colorbar(image, ax=panels, label=f"{setting.label}, mean of {seeds} seeds")
    words = f"{setting.trainer.upper()} on {setting.env}; in red what training drew"
    figure.suptitle(words, fontsize=11)
    figure.savefig(path)


def runner(env_id: str, drawn: tuple[str, ...], num_envs: int, steps: int) -> Callable[[], float]:
    """A function that plays `steps` random steps in each environment and returns steps/s."""
    from jaxrl.vec import VecEnv

    env = VecEnv(physics.make(Args(env=env_id, randomise=drawn), {}), num_envs)

    @jax.jit
    def play(state, key):
        def step(state, key):
            act_key, step_key = jax.random.split(key)
            state, ts = env.step(state, env.sample_actions(act_key), step_key)
            return state, ts.reward.sum()

        return jax.lax.scan(step, state, jax.random.split(key, steps))

    state = jax.block_until_ready(jax.jit(env.reset)(jax.random.key(0))[0])
    turn = iter(range(1, 1000))

    def timed() -> float:
        nonlocal state
        begin = perf_counter()
        state, reward = jax.block_until_ready(play(state, jax.random.key(next(turn))))
        assert jnp.isfinite(reward).all()
        return num_envs * steps / (perf_counter() - begin)

    timed()
    return timed


def speed(out: Path) -> None:
    """Medians of nine runs in turns."""
    lines = []
    for env_id, drawn in (
        ("CartPole-v1", ("gravity=uniform:8:12", "half_length=loguniform:0.25:1")),
        ("Pendulum-v1", ("gravity=uniform:8:12", "length=loguniform:0.25:1")),
    ):
        runs = [runner(env_id, given, 1024, 500) for given in ((), drawn)]
        pairs = [[run() for run in runs] for _ in range(9)]
        fixed, randomised = (statistics.median(x) for x in zip(*pairs, strict=True))
        print(f"{env_id}: {fixed:.3g} steps/s, drawn {randomised:.3g}, {fixed / randomised:.2f}x")
        lines.append(
            {
                "env": env_id,
                "randomise": drawn,
                "steps_per_s": [fixed, randomised],
                "runs": pairs,
                "versions": versions("jaxrl", "jax", "jaxlib"),
                "machine": machine(f"{len(jax.devices())} x {jax.devices()[0].platform}"),
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="pendulum")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=32, help="of each policy in each cell")
    parser.add_argument("--steps", type=int, help="shorten the training, to check that it works")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--speed", action="store_true", help="what drawing costs")
    args = parser.parse_args()
    if args.speed:
        speed(args.out)
    else:
        compare(args.setting, args.seeds, args.episodes, args.steps, args.out)


if __name__ == "__main__":
    main()
