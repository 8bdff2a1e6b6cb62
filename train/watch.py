"""Watch what a run learned, or how it learned it: a film of episodes, or a page of conversations.

`python -m train.watch --run DIR` plays fresh episodes and shows the best, the median and the worst.
With `--iteration 40 --env-index 3` it shows what that environment went through in that iteration of
training, bit for bit: nothing of it was stored, the program is brought there again.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxrl import envs, memory
from jaxrl.config import check_fields, check_range
from jaxrl.env import Environment
from jaxrl.envs.bridges.pictures import without_window
from jaxrl.envs.pictures import bare, drawn
from jaxrl.host.environment import HostEnvironment
from jaxrl.train import again, conversations, film, flags, language, physics, played, swept
from jaxrl.train.compiled import keep_compiled_programs
from jaxrl.train.devices import offer_cores
from jaxrl.train.paths import Folder, NewFile
from jaxrl.train.trainer import Trainer

BEST_FPS = 30


@dataclass(frozen=True)
class Args:
    run: Folder  # the run's folder
    out: NewFile | None = None  # .gif, .mp4 or, of language agents, .html; default watch.* in run
    episodes: int = 9  # fresh ones that are played; the best, median and worst are shown
    greedy: bool = False  # the likeliest action always; else they are drawn as in training
    seed: int = 1_000_000  # of the episodes
    seed_index: int = 0  # which of the run's policies: seeds, and configurations of a sweep
    iteration: int | None = None  # show this iteration of training instead
    env_index: int = 0  # which of its environments; of a language agent, of the episodes it kept
    devices: int = 0  # of that; 0: as the run had, another number is not bit-equal
    max_steps: int = 1000  # of an episode that are shown
    fps: int = 0  # pictures a second; 0: 30, or fewer where episodes are short

    def __post_init__(self):
        check_fields(self)
        check_range("episodes", self.episodes, 1, 2**20, 9)
        check_range("seed", self.seed, 0, 2**31 - 1, 1_000_000)
        check_range("seed_index", self.seed_index, 0, 2**31 - 1, 0)
        check_range("env_index", self.env_index, 0, 2**31 - 1, 0)
        check_range("devices", self.devices, 0, 2**20, 0)
        check_range("max_steps", self.max_steps, 1, 100_000, 1000)
        check_range("fps", self.fps, 0, 100, 30)
        if self.iteration is None and self.env_index:
            raise ValueError(
                f"env_index={self.env_index} is of a training iteration; give --iteration."
            )
        if self.iteration is not None and self.greedy:
            raise ValueError("greedy=True is not how training played; leave it or iteration out.")


def main(args: Args) -> Path:
    """Writes the film or page and says what is in it; ValueError where there is nothing to show."""
    trainer = again.trainer_of(args.run)
    options = flags.saved_options(trainer, args.run)
    if isinstance(options, language.Options):
        return conversations.watch(args, options)
    out = args.out or args.run / "watch.gif"
    film.check(out)
    env = physics.make(options, flags.env_fields(options))
    check_drawn(options.env, env)
    if args.iteration is not None:
        panels = [training(args, env)]
    else:
        panels = fresh(args, trainer, options, env)
    longest = max(len(panel.ending) for panel in panels)
    fps = args.fps or min(BEST_FPS, max(2, longest // 4))
    count = film.write(out, panels, fps)
    print(f"{out}: {count} pictures, {fps} a second, {out.stat().st_size:,} bytes")
    return out


def check_drawn(id: str, env: Environment) -> None:
    """ValueError, before anything is played, for an environment without pictures."""
    if isinstance(env, HostEnvironment):
        raise ValueError(
            f"env={id} is stepped by Python, which keeps its pictures to itself; "
            "watch a run of one that is part of the program, such as CartPole-v1."
        )
    shapes, _ = jax.eval_shape(env.reset, jax.random.key(0))
    inner, _ = bare(env, shapes)
    if not hasattr(inner, "frames"):
        jax.eval_shape(partial(drawn, env), shapes)
        return
    state, _ = jax.jit(env.reset)(jax.random.key(0))  # by a suite, which may lack what it draws by
    envs.frames(env, jax.tree.map(lambda x: x[None], state))


def fresh(args: Args, trainer: Trainer, options: Any, env: Environment) -> list[film.Panel]:
    """The best, median and worst of new episodes."""
    member = pick(args, options, env, trainer)
    policies, outcome = trainer.reload(args.run, options)
    parts = [replace(part, option="episodes") for part in outcome.parts(args.episodes)]
    memory.check(parts, 1, jax.devices()[:1])
    policy = jax.tree.map(lambda x: jax.numpy.asarray(x[args.seed_index]), policies)
    shown = played.episodes(policy, member.env, args)
    for one in shown:
        print(f"{one.title.lower()}: {one.words}")
    return [one.panel(member.env) for one in shown]


def pick(args: Args, options: Any, env: Environment, trainer: Trainer) -> Any:
    """The member that is asked for; ValueError for one that the run does not have."""
    check_seed_index(args, options)
    members = swept.members_of(options, options.algo, env, trainer.name)
    return jax.tree.map(lambda x: x[args.seed_index], members)


def check_seed_index(args: Args, options: Any) -> None:
    if args.seed_index >= options.num_members:
        raise ValueError(
            f"seed_index={args.seed_index} must lie in [0, {options.num_members - 1}]; try 0."
        )


def training(args: Args, env: Environment) -> film.Panel:
    """What an environment went through in an iteration of training."""
    assert args.iteration is not None
    trainer = again.trainer_of(args.run)
    options = flags.saved_options(trainer, args.run)
    member = pick(args, options, env, trainer)
    it = again.reach(args.run, args.iteration, args.env_index, args.devices)
    steps, paid, length = again.listen(it, args.seed_index, args.env_index)
    one = played.of_training(
        steps, paid, length, f"iteration {args.iteration} env {args.env_index}"
    )
    print(one.words)
    return one.panel(member.env)


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    offer_cores()
    without_window()

    def work(args: Args) -> None:
        keep_compiled_programs()
        main(args)

    flags.run(Args, __doc__ or "", argv, work)


if __name__ == "__main__":
    run(sys.argv[1:])
