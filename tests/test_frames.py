"""Pictures: shapes by their areas, text by its dots, and a picture of every native environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from envs.registry import TABLE
from jaxrl import envs, font, frames
from jaxrl.env import Environment
from jaxrl.envs import pictures
from jaxrl.wrappers import (
    EpisodeStats,
    FrameStack,
    ScaleAction,
    TimeLimit,
    TimeLimitState,
)

DRAWN = [id for id in TABLE if not envs.spec(id).is_language]
BLACK, WHITE = frames.colour("#000000"), frames.colour("#ffffff")


def area(draw):
    """Pixels that a white shape covers on a black picture."""
    return float(jit(lambda: jnp.sum(draw(frames.canvas(60, 80, BLACK))[..., 0]))())


SHAPES = {  # by the formulas of geometry
    "disc": (lambda p: frames.disc(p, (40.3, 29.6), 20, WHITE), np.pi * 400),
    "ring": (lambda p: frames.ring(p, (40, 30), 20, 6, WHITE), 2 * np.pi * 20 * 6),
    "line": (lambda p: frames.line(p, (15, 20), (55, 50), 4, WHITE), 4 * 50 + np.pi * 4),
    "box": (lambda p: frames.box(p, (40, 30), (30, 20), WHITE, 0.5), 600),
    "round box": (
        lambda p: frames.box(p, (40, 30), (30, 20), WHITE, 0.5, 5),
        600 - (4 - np.pi) * 25,
    ),
    "triangle": (lambda p: frames.polygon(p, [(20, 50), (40, 10), (60, 50)], WHITE), 800),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_covers_as_many_pixels_as_it_is_large(name):
    draw, wanted = SHAPES[name]
    assert area(draw) == pytest.approx(wanted, rel=0.01)


def test_an_edge_is_a_blend_of_one_pixel():
    row = frames.box(frames.canvas(9, 20, BLACK), (10, 4.5), (10.5, 40), WHITE)[4, :, 0]
    np.testing.assert_allclose(row, [0] * 4 + [0.25] + [1] * 10 + [0.25] + [0] * 4, atol=1e-6)


def spelled(glyphs):
    names = {i: c for c, i in font._INDEX.items()}
    return "".join(names[int(i)] for i in np.asarray(glyphs))


def test_numbers_are_spelled_as_python_spells_them():
    values = [0, 7, -7, 10, -199, 1234, 0.006, -0.004, 3.14159, -42.5, 999.999, -0.0]
    got = jit(jax.vmap(lambda x: font.number(x, 9, 2)))(jnp.float32(values))
    wanted = [f"{x:.2f}" if round(x, 2) else "0.00" for x in values]
    assert [spelled(row) for row in got] == [f"{text:9}" for text in wanted]
    few = jit(jax.vmap(lambda x: font.number(x, 4)))(jnp.float32([-12.4, 1e9, np.nan]))
    assert [spelled(row) for row in few] == ["-12 ", "999 ", "999 "]


def test_text_has_the_dots_of_its_glyphs():
    draw = jit(lambda: frames.text(frames.canvas(20, 30, BLACK), "1-", (2, 3), 7, WHITE))
    picture = draw()[..., 0]
    wanted = np.zeros((20, 30))
    wanted[3:10, 2:7], wanted[3:10, 8:13] = font.GLYPHS[font.codes("1-")]
    np.testing.assert_allclose(picture, wanted, atol=1e-6)
    assert len({glyph.tobytes() for glyph in font.GLYPHS}) == len(font.GLYPHS)


@pytest.mark.parametrize("id", DRAWN)
def test_every_native_environment_draws_its_states(id):
    """By tracing: fields and state are numbers that a program knows later."""
    env = envs.make(id)
    state, _ = jax.eval_shape(env.reset, jax.random.key(0))
    picture = jax.eval_shape(lambda env, state: env.render(state), env, state)
    height, width, channels = picture.shape
    assert (channels, picture.dtype) == (3, jnp.uint8)
    assert 90 <= height <= 1000 and 100 <= width <= 1000


MOVED = {  # an action, again and again, that changes what is seen
    "CartPole-v1": 1,
    "GridWorld-v0": 1,
    "MemoryChain-v0": 0,
    "Pendulum-v1": np.float32([2.0]),
}


@pytest.fixture(scope="module")
def walks():
    """id -> (env, states [4, ...] along an episode, their pictures)."""

    def walk(env, action):
        def step(state, key):
            return env.step(state, action, key)[0], state

        state, _ = env.reset(jax.random.key(0))
        states = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 4))[1]
        return states, jax.vmap(env.render)(states)

    made = {id: envs.make(id) for id in MOVED}
    found = jit(lambda: {id: walk(env, jnp.asarray(MOVED[id])) for id, env in made.items()})()
    return {id: (env, *found[id]) for id, env in made.items()}


@pytest.mark.parametrize("id", MOVED)
def test_pictures_change_as_states_do(id, walks):
    pictures = np.asarray(walks[id][2], int)
    assert np.abs(pictures[0] - pictures[3]).max() > 40


def test_grid_world_is_drawn_where_things_are(walks):
    picture = np.asarray(walks["GridWorld-v0"][2][2])  # at row 0, column 2
    assert picture.shape == (400, 400, 3)
    np.testing.assert_array_equal(picture[50, 230], np.round(255 * frames.BLUE))
    np.testing.assert_array_equal(picture[150, 150], np.round(255 * frames.GREY))  # the wall
    np.testing.assert_array_equal(picture[50, 150], np.round(255 * frames.PAPER))


def test_wrappers_pass_on_to_the_environment_inside(walks):
    """Without a batch too, and statistics put a line over the picture."""
    env, states, pictures = walks["Pendulum-v1"]
    inner = jax.tree.map(lambda x: x[3], states)
    wrapped = EpisodeStats(ScaleAction(FrameStack(env, 2)))
    state, _ = jax.eval_shape(wrapped.reset, jax.random.key(0))
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    state = state.replace(inner=state.inner.replace(inner=inner), episode_length=jnp.int32(12))

    def draw(state):
        return wrapped.render(state), frames.head(400, {"step": (12, 0), "return": (0.0, 2)})

    picture, head = map(np.asarray, jit(draw)(state))
    np.testing.assert_array_equal(picture[: frames.HEAD], head)
    apart = picture[frames.HEAD :].astype(int) - np.asarray(pictures[3], int)
    assert np.abs(apart).max() <= 1  # of a rounded blend


def test_many_states_are_drawn_in_pieces():
    def draw(x):
        return np.broadcast_to(x[:, None, None, None], (len(x), 2, 2, 3))

    count = 2 * pictures.PIECE + 3
    found = list(pictures.in_pieces(draw, np.arange(count)))
    assert [int(picture[0, 0, 0]) for picture in found] == list(range(count))


def test_an_environment_without_pictures_says_so_by_name():
    class Dark(Environment):
        pass

    with pytest.raises(ValueError, match=r"^Dark draws no pictures; try GridWorld-v0, or .*\.$"):
        TimeLimit(Dark(), 5).render(TimeLimitState((), jnp.int32(0)))
