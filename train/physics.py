"""The options of physics that vary, and the environment that they make."""

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxrl import envs
from jaxrl.config import check_range
from jaxrl.env import Environment, Wrapper
from jaxrl.envs.fields import fields_of, near
from jaxrl.host.environment import HostEnvironment
from jaxrl.physics import ActionDelay, Draw, ObservationNoise, Push, Randomise, numbers
from jaxrl.wrappers import TimeLimit

A = TypeVar("A")
FORMS = {  # kind -> how it is written
    "uniform": "uniform:LOW:HIGH",
    "loguniform": "loguniform:LOW:HIGH",
    "normal": "normal:MEAN:STD",
    "choice": "choice:A:B:...",
}
EXAMPLES = {"uniform": "8:12", "loguniform": "0.5:2", "normal": "10:1", "choice": "0:1:2"}
LARGEST = float(np.finfo(np.float32).max)
LONGEST_DELAY = 1000  # steps; so many actions are kept


@dataclasses.dataclass(frozen=True)
class Physics:
    """What of an environment is drawn at every reset, and what disturbs it."""

    randomise: tuple[str, ...] = ()  # fields drawn at every reset, as NAME=uniform:LOW:HIGH
    observation_noise: float | None = None  # standard deviation of the noise in what is observed
    action_delay: int | None = None  # steps after which an action acts
    push_chance: float | None = None  # that the action of a step is disturbed, in [0, 1]
    push: float | None = None  # by how much at most, in halves of the action's range; 1 without

    def check_physics(self) -> None:
        """ValueError for what can be told without the environment."""
        parse(self.randomise)
        check_range("observation_noise", self.observation_noise, 0.0, 1e9, 0.01)
        check_range("action_delay", self.action_delay, 0, LONGEST_DELAY, 1)
        check_range("push_chance", self.push_chance, 0.0, 1.0, 0.01)
        check_range("push", self.push, 0.0, 1e9, 1.0)


OPTIONS = tuple(field.name for field in dataclasses.fields(Physics))


def parse(texts: Sequence[str]) -> dict[str, tuple[str, tuple[float, ...]]]:
    """{"gravity": ("uniform", (8.0, 12.0))} from ["gravity=uniform:8:12"]."""
    found = {}
    for text in texts:
        name, separator, rest = text.partition("=")
        name = name.replace("-", "_")
        kind, *words = rest.split(":")
        if not separator or not name.isidentifier() or kind not in FORMS:
            forms = ", ".join(FORMS.values())
            raise ValueError(
                f"randomise={text or repr('')} must be NAME=DISTRIBUTION with one of {forms}; try "
                "gravity=uniform:8:12."
            )
        if name in found:
            raise ValueError(f"randomise={text} has {name} a second time; give it once.")
        found[name] = kind, _numbers(text, kind, words)
    return found


def _numbers(text: str, kind: str, words: Sequence[str]) -> tuple[float, ...]:
    values: tuple[float, ...] = ()
    with contextlib.suppress(ValueError):
        values = tuple(float(word) for word in words if len(word) < 100)
    two, example = kind != "choice", f"{text.partition('=')[0]}={kind}:{EXAMPLES[kind]}"
    fits = len(values) == len(words) >= 1 and all(abs(x) <= LARGEST for x in values)
    if not fits or (two and len(values) != 2):
        raise ValueError(
            f"randomise={text} must be {FORMS[kind]} with finite numbers; try {example}."
        )
    rule = {
        "uniform": (values[0] < values[-1], "LOW below HIGH"),
        "loguniform": (0 < values[0] < values[-1], "0 < LOW < HIGH"),
        "normal": (values[-1] > 0, "STD above 0"),
        "choice": (len(set(values)) == len(values) > 1, "two different values or more"),
    }[kind]
    if not rule[0]:
        raise ValueError(f"randomise={text} must have {rule[1]}; try {example}.")
    return values


def make(args: Any, fields: Mapping[str, Any]) -> Environment:
    """The environment that a trainer's options name, with these fields; ValueError for bad ones."""
    env, known = envs.make(args.env, **fields), OPTIONS if isinstance(args, Physics) else ()
    asked = [name for name in known if getattr(args, name) not in (None, ())]
    if asked and isinstance(env, HostEnvironment):
        raise ValueError(
            f"{asked[0]}={_shown(args, asked[0])} is a part of the program, and env={args.env} is "
            "stepped by Python; leave it out."
        )
    if not asked:
        return env
    if isinstance(env, TimeLimit):
        return env.replace(env=_varied(args, env.env))
    return _varied(args, env)


def _shown(args: Any, name: str) -> str:
    value = getattr(args, name)
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _varied(args: Any, env: Environment) -> Environment:
    asked = parse(args.randomise)
    if args.push is not None and args.push_chance is None and "push_chance" not in asked:
        raise ValueError(
            f"push_chance is not given, and push={args.push} is how much; try --push-chance 0.01."
        )
    if args.push_chance or {"push", "push_chance"} & asked.keys():
        env = Push(env, args.push_chance or 0.0, 1.0 if args.push is None else args.push)
    most = delay = args.action_delay or 0
    if "action_delay" in asked:
        kind, values = asked["action_delay"]
        most = max(delay, int(Draw(values, kind).ends[1]))
        check_range("action_delay", most, 0, LONGEST_DELAY, 1)
    if most:
        env = ActionDelay(env, delay, most)
    if args.observation_noise or "observation_noise" in asked:
        env = ObservationNoise(env, args.observation_noise or 0.0)
    if not asked:
        return env
    level = 1.0 if args.curriculum else None
    return Randomise(env, tuple(_draw(args, env, name) for name in asked), tuple(asked), level)


def _draw(args: Any, env: Environment, name: str) -> Draw:
    """The distribution of one field; ValueError where the environment does not draw it."""
    text, known = _by_name(args.randomise)[name], numbers(env)
    if name not in known:
        raise ValueError(f"randomise={text}: {_refusal(args.env, name, known)}")
    base = known[name]
    if args.curriculum and base is None:
        raise ValueError(
            f"randomise={text}: {name} is off, and curriculum={args.curriculum} begins at its own "
            f"value; try --env-args {name}=1."
        )
    kind, values = parse(args.randomise)[name]
    draw = Draw(values, kind, isinstance(base, int | np.integer))
    if draw.whole and (kind == "normal" or any(x != round(x) for x in values)):
        raise ValueError(
            f"randomise={text}: {name} is an integer; try {name}=uniform:0:2 or choice:0:2."
        )
    holder = env
    while name not in {f.name for f in dataclasses.fields(holder)} and isinstance(holder, Wrapper):
        holder = holder.env
    for end in draw.ends if name in {f.name for f in dataclasses.fields(holder)} else ():
        try:
            holder.replace(**{name: int(end) if draw.whole else end})
        except ValueError as error:
            raise ValueError(f"randomise={text}: {error}") from None
    return draw


def _refusal(env_id: str, name: str, known: Collection[str]) -> str:
    own = ", ".join(known) or "none of its fields"
    if name in fields_of(envs.spec(env_id).constructor):
        return f"{name} shapes the program of {env_id}, which can draw {own}."
    return f"{env_id} has no number {name!r}; near: {near(name, known)}; it can draw {own}."


def given(args: Any) -> dict[str, Any]:
    """The numbers that options give a value: fields of the environment, its noise and the like."""
    own = {name: x for name in OPTIONS[1:] if (x := getattr(args, name)) is not None}
    return _by_name(args.env_args) | own


def changed(options: A, args: Any) -> A:
    """A run's options with the fields and physics that `args` has; ValueError where both name one.

    What is given a value is no longer drawn, and what is drawn has none.
    """
    fixed, drawn = given(args), _by_name(args.randomise)
    for name in fixed.keys() & drawn.keys():
        raise ValueError(f"randomise={drawn[name]}: {name} is given a value too; leave one out.")
    before: Any = options
    free = () if before.curriculum else drawn
    found = {name: x for name, x in given(before).items() if name not in free} | fixed
    drawn = {k: x for k, x in (_by_name(before.randomise) | drawn).items() if k not in fixed}
    return dataclasses.replace(
        before,
        randomise=tuple(drawn.values()),
        curriculum=before.curriculum if drawn else "",
        env_args=tuple(x for name, x in found.items() if name not in OPTIONS),
        **{name: found.get(name) for name in OPTIONS[1:]},
    )


def _by_name(texts: Sequence[str]) -> dict[str, str]:
    return {text.partition("=")[0].replace("-", "_"): text for text in texts}
