"""JAXtari's games (once jaxatari), Atari's in JAX, behind our contract.

Only the raw game and the suite's `AtariWrapper` are called, which never reset in a step.
Conformance: tests/test_envs_jaxatari.py, with sprites of our own.
"""

import functools
import os
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxrl.env import Environment, TimeStep, static, timestep
from jaxrl.envs.bridges.avals import like, strong
from jaxrl.envs.fields import Field, check_fields, check_max_steps
from jaxrl.spaces import Box, Discrete
from jaxrl.wrappers import FrameStack, TimeLimit, tree_where

NAMES = (  # what jaxtari 0.2.0 registers
    "airraid",
    "alien",
    "amidar",
    "assault",
    "asterix",
    "asteroids",
    "atlantis",
    "backgammon",
    "bankheist",
    "basicmath",
    "beamrider",
    "berzerk",
    "blackjack",
    "boxing",
    "breakout",
    "casinoblackjack",
    "casinofivestudpoker",
    "casinopokersolitaire",
    "centipede",
    "choppercommand",
    "donkeykong",
    "enduro",
    "fishingderby",
    "flagcapture",
    "freeway",
    "frostbite",
    "galaxian",
    "gopher",
    "gravitar",
    "hangman",
    "hauntedhouse",
    "humancannonball",
    "journeyescape",
    "kaboom",
    "kangaroo",
    "kingkong",
    "klax",
    "lasergates",
    "miniaturegolf",
    "montezumarevenge",
    "mspacman",
    "namethisgame",
    "othello",
    "pacman",
    "phoenix",
    "pong",
    "qbert",
    "riverraid",
    "roadrunner",
    "seaquest",
    "sirlancelot",
    "skiing",
    "slotmachine",
    "spaceinvaders",
    "spacewar",
    "surround",
    "tennis",
    "tetris",
    "timepilot",
    "tron",
    "turmoil",
    "upndown",
    "venture",
    "videocheckers",
    "videochess",
    "videocube",
    "videopinball",
    "wizardofwor",
    "wordzapper",
    "yarsrevenge",
)
SPRITES = "python -m jaxtari.install_sprites"  # asks about ROMs, or takes other sprites
DOWNLOADS = dict.fromkeys(NAMES, f"sprites, by {SPRITES}")
LANGUAGE = False
MENDS = (
    "An episode ends with the game and not with a life; nothing resets inside a step, and frames "
    "after the end are not played; the limit of 108,000 frames is counted here and truncates; "
    "rewards are the game's own."
)
FRAMES = 108_000  # of an episode: 30 minutes
FIELDS = {
    "frame_skip": Field(4, int, structural=True),
    "num_frames": Field(4, int, structural=True),
    "noop_max": Field(30, int, structural=True),
    "sticky_actions": Field(0.25, float, structural=True),
    "pixels": Field(False, bool, structural=True),
}
SIZE = 84  # of a picture


class Jaxatari(Environment):
    """A game seen as its objects in one vector, or as a grey picture; an action lasts some frames.

    Its state is the suite's, in which a key draws the sticky actions.
    """

    game: Any = static(None)  # the suite's game inside its AtariWrapper
    size: int = static(0)  # of the vector; 0: pictures
    frame_skip: int = static(4)

    @property
    def observation_space(self) -> Box:
        if not self.size:
            return Box(0, 255, (SIZE, SIZE, 1), jnp.uint8)
        return Box(-jnp.inf, jnp.inf, (self.size,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(int(self.game.action_space().n))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        obs, state = self.game.reset(jax.random.key_data(key))
        return strong(state), timestep(self._observe(obs, state))

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, TimeStep]:
        del key  # the suite's state has one

        def frame(before: Any, _: None) -> tuple[Any, Any]:
            state, over, reward = before
            obs, after, paid, _, _, info = self.game.step(state, action)
            state = tree_where(over, state, like(after, state))
            reward += jnp.where(over, 0.0, jnp.asarray(paid, jnp.float32))
            return (state, over | info["env_done"], reward), (obs, over)

        start = state, jnp.zeros((), jnp.bool_), jnp.zeros((), jnp.float32)
        (state, over, reward), (seen, past) = jax.lax.scan(frame, start, None, self.frame_skip)
        last = self.frame_skip - 1 - jnp.sum(past)
        obs = jax.tree.map(lambda x: x[last], seen)
        return state, timestep(self._observe(obs, state), reward, over)

    def _observe(self, obs: Any, state: Any) -> jax.Array:
        if self.size:
            return ravel_pytree(obs)[0].astype(jnp.float32)
        picture = self.game.render(state.env_state).astype(jnp.float32)
        grey = picture @ jnp.array([0.299, 0.587, 0.114])  # of ITU-R BT.601
        return jax.image.resize(grey, (SIZE, SIZE), "linear").astype(jnp.uint8)[..., None]

    def render(self, state: Any) -> jax.Array:
        """The game's own picture, twice as large."""
        return jnp.repeat(jnp.repeat(self.game.render(state.env_state), 2, 0), 2, 1)


def ids() -> tuple[str, ...]:
    return NAMES


def make(name: str, *, max_steps: Any = 0, **fields: Any) -> Environment:
    """The suite's `name`, the last `num_frames` observations side by side, inside a time limit.

    `sticky_actions` is the probability that an action is the one before, frame by frame. At a
    start up to `noop_max` frames pass. `max_steps` 0 is 108,000 frames, None is no limit.
    """
    id = f"jaxatari/{name}"
    chosen = {k: field.default for k, field in FIELDS.items()} | check_fields(id, fields, FIELDS)
    for field, low in (("frame_skip", 1), ("num_frames", 1), ("noop_max", 0)):
        if chosen[field] < low:
            value, default = chosen[field], FIELDS[field].default
            raise ValueError(f"{id}: {field}={value} must be at least {low}; try {default}.")
    if not 0 <= (sticky := chosen["sticky_actions"]) <= 1:
        raise ValueError(f"{id}: sticky_actions={sticky} must lie in [0, 1]; try 0.25.")
    skip = chosen["frame_skip"]
    max_steps = -(-FRAMES // skip) if isinstance(max_steps, int) and not max_steps else max_steps
    check_max_steps(id, max_steps)
    game, size = _game(name, sticky, chosen["noop_max"])
    env = Jaxatari(game, 0 if chosen["pixels"] else size, skip)
    stacked = env if chosen["num_frames"] == 1 else FrameStack(env, chosen["num_frames"])
    return stacked if max_steps is None else TimeLimit(stacked, max_steps)


@functools.cache  # equal structure is one object, so that jit does not compile again
def _game(name: str, sticky: float, noop_max: int) -> tuple[Any, int]:
    """The suite's game in its AtariWrapper, and the size of its objects in one vector."""
    suite = _suite(name)
    os.environ.setdefault("JAXTARI_SKIP_SPRITE_UPDATE", "1")  # it would ask on the terminal
    try:
        with warnings.catch_warnings(action="ignore"):
            raw = suite.make(name)
    except (RuntimeError, OSError) as error:  # its own words fill a page
        reason = "none are installed" if isinstance(error, RuntimeError) else str(error)
        raise OSError(f"jaxatari/{name} needs its sprites: {SPRITES} ({reason}).") from error
    game = suite.wrappers.AtariWrapper(
        raw, sticky, episodic_life=False, noop_max=noop_max, max_frames_per_episode=2**31 - 1
    )
    obs, _ = jax.eval_shape(game.reset, jax.ShapeDtypeStruct((2,), jnp.uint32))
    return game, sum(x.size for x in jax.tree.leaves(obs))


def _suite(name: str) -> Any:
    """The module `jaxtari`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it imports
            import jaxtari.wrappers
    except ImportError as error:
        text = f"jaxatari/{name} needs jaxtari: pip install 'jaxrl[jaxatari]' ({error})."
        raise ImportError(text) from error
    return jaxtari
