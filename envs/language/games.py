"""The table of language games: both families, every level."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxrl.envs.language.guess_the_number import GuessTheNumber
from jaxrl.envs.language.mastermind import Mastermind
from jaxrl.envs.language.tower_of_hanoi import TowerofHanoi

LEVELS: dict[str, tuple[Callable[..., Any], dict[str, dict[str, Any]]]] = {
    "GuessTheNumber": (
        GuessTheNumber,
        {
            "easy": {"low": 1, "high": 10, "turns": 4},
            "hard": {"low": 1, "high": 50, "turns": 7},
            "random": {"random_level": True},
        },
    ),
    "Mastermind": (
        Mastermind,
        {
            "easy": {"length": 2, "numbers": 6, "turns": 10},
            "hard": {"length": 4, "numbers": 8, "turns": 30},
            "random": {"random_level": True},
        },
    ),
    "TowerofHanoi": (
        TowerofHanoi,
        {
            "easy": {"disks": 3, "turns": 10},
            "hard": {"disks": 5, "turns": 35},
            "random": {"random_level": True},
        },
    ),
}
TABLE: dict[str, tuple[Callable[..., Any], None]] = {
    f"{family}/{name}-{level}": (partial(constructor, gem=family == "gem", **fields), None)
    for name, (constructor, levels) in LEVELS.items()
    for level, fields in levels.items()
    for family in ("gem", "language")
}
