"""Atari games (arXiv:1207.4708) as the DQN paper shows them: four frames a step, the maximum of the
last two, 84x84 grey, a stack of four, up to 30 no-ops at the begin.

Through envpool where it is installed and has the game, else ale-py in worker processes.
"""

import importlib.util
from functools import partial
from typing import Any

import numpy as np

from jaxrl.envs.bridges.gymnasium import opened
from jaxrl.envs.fields import near
from jaxrl.host.environment import HostEnvironment, World
from jaxrl.spaces import Box, Discrete

DOWNLOADS: dict[str, str] = {}
LANGUAGE = False
MENDS = (
    "A lost life ends an episode for the learner alone: metrics are of whole games, with rewards "
    "as the game gives them. The last observation is kept beside the next episode's first."
)
OBSERVATION = Box(0, 255, (84, 84, 4), np.uint8)
MAX_STEPS = 27_000  # half an hour of play
ENGINES = ("auto", "envpool", "ale")


def ids() -> tuple[str, ...]:
    return NAMES


def make(
    name: str,
    *,
    max_steps: int | None = MAX_STEPS,
    sticky: float = 0.0,
    life_ends: bool = True,
    clip: bool = True,
    fire: bool = True,
    all_actions: bool = False,
    engine: str = "auto",
) -> HostEnvironment:
    """The game; `sticky` is the probability that a frame repeats the action before.

    `life_ends`, `clip` (rewards to -1, 0 and 1) and `fire` (pressed where a life begins) are what
    DQN learned with. `max_steps` counts the game's steps, None leaves only the game's own end.
    """
    id = f"atari/{name}"
    if name not in NAMES:
        raise ValueError(f"No Atari game {name!r}; near: {near(name, NAMES)}.")
    if not 0 <= sticky < 1:
        raise ValueError(f"{id}: sticky={sticky} must lie in [0, 1); try 0.25.")
    options = {"max_steps": max_steps, "sticky": sticky, "life_ends": life_ends, "clip": clip}
    options |= {"fire": fire, "all_actions": all_actions}
    engine = _engine(id, engine)
    num_actions, begin = {"envpool": _envpool, "ale": _ale}[engine](id, name, options)
    acts, how, threads = Discrete(num_actions), repr((engine, options)), engine == "envpool"
    return HostEnvironment(World(id, OBSERVATION, acts, begin, how, max_steps, threads))


def _engine(id: str, engine: str) -> str:
    """Which of the two plays; ImportError where it is not installed."""
    name = id.removeprefix("atari/")
    if engine not in ENGINES:
        raise ValueError(f"{id}: engine={engine} must be {', '.join(ENGINES)}; try auto.")
    if engine == "envpool" and name in ONLY_ALE:
        raise ValueError(f"{id}: engine=envpool does not have this game; try ale.")
    found = {"ale": _has("ale_py"), "envpool": _has("envpool") and name not in ONLY_ALE}
    if engine == "auto":
        engine = "envpool" if found["envpool"] else "ale"
    if not found[engine]:
        package, extra = {"ale": ("ale-py", "atari"), "envpool": ("envpool", "envpool")}[engine]
        raise ImportError(f"{id} needs {package}: pip install 'jaxrl[{extra}]'.")
    return engine


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _envpool(id: str, name: str, options: dict[str, Any]) -> tuple[int, Any]:
    """(number of actions, how games are started)."""
    import envpool

    renamed = {
        "max_episode_steps": options["max_steps"] or 2**31 - 1,
        "repeat_action_probability": options["sticky"],
        "episodic_life": options["life_ends"],
        "reward_clip": options["clip"],
        "use_fire_reset": options["fire"],
        "full_action_space": options["all_actions"],
    }
    spec = envpool.make_spec(f"{name}-v5", **renamed)
    return int(spec.action_space.n), partial(_open_envpool, name, renamed)


def _open_envpool(name: str, options: dict[str, Any], num_envs: int, actors: Any) -> Any:
    import envpool

    from jaxrl.host.envpool import Pool

    def make(num_envs: int, seeds: list[int]) -> Any:
        threads = {"num_threads": min(actors.num_processes, num_envs)}
        how = {"env_type": "gymnasium", "num_envs": num_envs, "seed": seeds, **threads}
        return envpool.make(f"{name}-v5", **how, **options)

    return Pool(make, num_envs)


def _ale(id: str, name: str, options: dict[str, Any]) -> tuple[int, Any]:
    """(number of actions, how games are started); ImportError where a part is missing."""
    try:
        import cloudpickle
        import cv2  # noqa: F401
        import gymnasium  # noqa: F401

        from jaxrl.host import atari
    except ImportError as error:
        text = f"{id} needs {error.name}: pip install 'jaxrl[atari]'."
        raise ImportError(text) from error
    cloudpickle.register_pickle_by_value(atari)
    one = partial(atari.Atari, name, **options)
    env = one()
    gym = env.observation_space, env.action_space
    env.close()
    return int(gym[1].n), partial(opened, id, one, gym, OBSERVATION, records=True)  # pyright: ignore


ONLY_ALE = {"TicTacToe3D"}  # not in envpool 1.2.5
NAMES = (  # of ale-py 0.12.1
    "Adventure",
    "AirRaid",
    "Alien",
    "Amidar",
    "Assault",
    "Asterix",
    "Asteroids",
    "Atlantis",
    "Atlantis2",
    "Backgammon",
    "BankHeist",
    "BasicMath",
    "BattleZone",
    "BeamRider",
    "Berzerk",
    "Blackjack",
    "Bowling",
    "Boxing",
    "Breakout",
    "Carnival",
    "Casino",
    "Centipede",
    "ChopperCommand",
    "CrazyClimber",
    "Crossbow",
    "Darkchambers",
    "Defender",
    "DemonAttack",
    "DonkeyKong",
    "DoubleDunk",
    "Earthworld",
    "ElevatorAction",
    "Enduro",
    "Entombed",
    "Et",
    "FishingDerby",
    "FlagCapture",
    "Freeway",
    "Frogger",
    "Frostbite",
    "Galaxian",
    "Gopher",
    "Gravitar",
    "Hangman",
    "HauntedHouse",
    "Hero",
    "HumanCannonball",
    "IceHockey",
    "Jamesbond",
    "JourneyEscape",
    "Kaboom",
    "Kangaroo",
    "KeystoneKapers",
    "KingKong",
    "Klax",
    "Koolaid",
    "Krull",
    "KungFuMaster",
    "LaserGates",
    "LostLuggage",
    "MarioBros",
    "MiniatureGolf",
    "MontezumaRevenge",
    "MrDo",
    "MsPacman",
    "NameThisGame",
    "Othello",
    "Pacman",
    "Phoenix",
    "Pitfall",
    "Pitfall2",
    "Pong",
    "Pooyan",
    "PrivateEye",
    "Qbert",
    "Riverraid",
    "RoadRunner",
    "Robotank",
    "Seaquest",
    "SirLancelot",
    "Skiing",
    "Solaris",
    "SpaceInvaders",
    "SpaceWar",
    "StarGunner",
    "Superman",
    "Surround",
    "Tennis",
    "Tetris",
    "TicTacToe3D",
    "TimePilot",
    "Trondead",
    "Turmoil",
    "Tutankham",
    "UpNDown",
    "Venture",
    "VideoCheckers",
    "VideoChess",
    "VideoCube",
    "VideoPinball",
    "WizardOfWor",
    "WordZapper",
    "YarsRevenge",
    "Zaxxon",
)
