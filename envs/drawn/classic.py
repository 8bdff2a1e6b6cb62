"""Pictures of the classic control tasks, in their own proportions."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxrl import frames

if TYPE_CHECKING:
    from jaxrl.envs.classic.acrobot import Acrobot
    from jaxrl.envs.classic.cartpole import CartPole
    from jaxrl.envs.classic.mountain_car import MountainCar
    from jaxrl.envs.classic.pendulum import Pendulum, PendulumState

WOOD, HILL = frames.colour("#b9854a"), frames.colour("#dfe6d3")
FARTHEST = 2.8  # m from the middle that a track is drawn to; beyond it the picture moves


def cart_pole(env: "CartPole", state: jax.Array) -> jax.Array:
    """The cart on its track, a mark each metre, and red posts where it has run away."""
    width, height, ground = 600, 300, 240.0
    reach = min(1.1 * env.x_limit, FARTHEST)
    scale = width / 2 / reach  # pixels of a metre
    shift = state[0] - jnp.clip(state[0], 0.25 - reach, reach - 0.25)
    picture = frames.canvas(height, width)
    x, _ = frames.pixels(picture)

    def place(metres):
        return width / 2 + (metres - shift) * scale

    to_mark = jnp.abs((x - place(0.0) + scale / 2) % scale - scale / 2)
    marks = jnp.maximum(to_mark - 1, jnp.abs(frames.pixels(picture)[1] - ground - 8) - 6)
    picture = frames.paint(picture, marks, frames.LIGHT)
    picture = frames.line(picture, (-9, ground), (width + 9, ground), 3, frames.GREY)
    for limit in (-env.x_limit, env.x_limit):
        ends = (place(limit), ground - 14), (place(limit), ground + 14)
        picture = frames.line(picture, *ends, 5, frames.RED)
    cart = place(state[0])
    for side in (-22, 22):
        picture = frames.disc(picture, (cart + side, ground - 9), 9, frames.INK)
    picture = frames.box(picture, (cart, ground - 28), (84, 34), frames.BLUE, corner=6)
    length = 2 * jnp.clip(env.half_length, 0.1, 0.8) * scale
    hinge = cart, ground - 42
    tip = hinge[0] + length * jnp.sin(state[2]), hinge[1] - length * jnp.cos(state[2])
    picture = frames.line(picture, hinge, tip, 13, WOOD)
    return frames.finished(frames.disc(picture, hinge, 5, frames.INK))


def pendulum(env: "Pendulum", state: "PendulumState") -> jax.Array:
    """The rod on its hinge, a green mark where it ought to stand, an arc for its speed."""
    side = 400
    middle, radius = (side / 2, side / 2), 150 * jnp.clip(env.length, 0.5, 1.15)
    picture = frames.canvas(side, side)
    picture = frames.ring(picture, middle, radius + 18, 2, frames.LIGHT)
    upright = side / 2, middle[1] - radius - 18
    picture = frames.disc(picture, upright, 7, frames.GREEN)
    picture = _arc(picture, middle, radius + 18, state.theta, 0.12 * state.theta_dot)
    tip = middle[0] + radius * jnp.sin(state.theta), middle[1] - radius * jnp.cos(state.theta)
    picture = frames.line(picture, middle, tip, 26, frames.RED)
    return frames.finished(frames.disc(picture, middle, 8, frames.INK))


def _arc(picture: jax.Array, middle: Any, radius: Any, start: Any, length: Any) -> jax.Array:
    """A part of a ring, from an angle clockwise from upright, along or against the clock."""
    x, y = frames.pixels(picture)
    half = jnp.abs(length) / 2
    angle = jnp.arctan2(x - middle[0], middle[1] - y) - (start + length / 2)
    away = jnp.abs((angle + jnp.pi) % (2 * jnp.pi) - jnp.pi) - half
    ring = jnp.abs(jnp.hypot(x - middle[0], y - middle[1]) - radius) - 4
    return frames.paint(picture, jnp.maximum(ring, away * radius), frames.ORANGE)


def acrobot(env: "Acrobot", state: jax.Array) -> jax.Array:
    """Both links, which hang from the middle, and the line that the tip has to reach."""
    side, scale = 400, 88.0  # pixels of a metre
    hinge = side / 2, side / 2
    line = hinge[1] - scale
    picture = frames.canvas(side, side)
    picture = frames.line(picture, (-9, line), (side + 9, line), 3, frames.GREEN)
    total = state[0] + state[1]
    elbow = hinge[0] + scale * jnp.sin(state[0]), hinge[1] + scale * jnp.cos(state[0])
    tip = elbow[0] + scale * jnp.sin(total), elbow[1] + scale * jnp.cos(total)
    picture = frames.line(picture, hinge, elbow, 20, frames.BLUE)
    picture = frames.line(picture, elbow, tip, 20, frames.SKY)
    picture = frames.disc(picture, hinge, 7, frames.INK)
    picture = frames.disc(picture, elbow, 7, frames.INK)
    return frames.finished(frames.disc(picture, tip, 7, frames.ORANGE))


def mountain_car(env: "MountainCar", state: jax.Array) -> jax.Array:
    """The car in the valley sin(3x) and the flag at its goal."""
    width, height = 600, 400
    scale = width / (env.max_position - env.min_position)
    picture = frames.canvas(height, width)
    x, y = frames.pixels(picture)

    def place(position):
        return (position - env.min_position) * scale

    def ground(position):
        return height - 24 - (0.45 * jnp.sin(3 * position) + 0.45) * scale

    def slope(position):  # downwards, as pixels are counted
        return -1.35 * jnp.cos(3 * position)

    position = x / scale + env.min_position
    below = (ground(position) - y) / jnp.sqrt(1 + slope(position) ** 2)
    picture = frames.paint(picture, below, HILL)
    picture = frames.paint(picture, jnp.abs(below) - 1.5, frames.GREY)
    foot = place(env.goal_position), ground(jnp.asarray(env.goal_position))
    picture = frames.line(picture, foot, (foot[0], foot[1] - 52), 3, frames.INK)
    flag = [(foot[0], foot[1] - 52), (foot[0] + 30, foot[1] - 42), (foot[0], foot[1] - 32)]
    picture = frames.polygon(picture, flag, frames.GREEN)
    angle = jnp.arctan(slope(state[0]))
    sin, cos = jnp.sin(angle), jnp.cos(angle)

    def on_car(along, up):
        foot = place(state[0]), ground(state[0])
        return foot[0] + along * cos + up * sin, foot[1] + along * sin - up * cos

    picture = frames.box(picture, on_car(0, 20), (52, 18), frames.BLUE, angle, 5)
    picture = frames.box(picture, on_car(-2, 33), (28, 14), frames.SKY, angle, 5)
    for side in (-15, 15):
        picture = frames.disc(picture, on_car(side, 9), 9, frames.INK)
        picture = frames.disc(picture, on_car(side, 9), 3.5, frames.LIGHT)
    return frames.finished(picture)
