"""Pictures of the suites' states [N, ...] by their own renderers, most of them on the host."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl.envs.bridges.packages import package
from jaxrl.envs.pictures import in_pieces

HEIGHT, WIDTH = 400, 480  # pixels of a robot's picture
LEAST = 300  # pixels of a side; smaller pictures are enlarged


def each(states: Any) -> list[Any]:
    """The states one by one, on the host."""
    states = jax.device_get(states)
    count = jax.tree.leaves(states)[0].shape[0]
    return [jax.tree.map(lambda x: x[i], states) for i in range(count)]  # noqa: B023


def enlarged(pictures: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Pictures [N, H, W, 3] with LEAST pixels a side, or a little more."""
    pictures = np.stack(list(pictures)).astype(np.uint8)
    times = -(-LEAST // min(pictures.shape[1:3]))
    return list(pictures.repeat(times, 1).repeat(times, 2))


def without_window() -> None:
    """Let MuJoCo draw where there is no screen; to be called before it is imported."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")


@contextlib.contextmanager
def by_mujoco(suite: str) -> Iterator[None]:
    """ValueError, in one line, where MuJoCo cannot draw here."""
    try:
        yield
    except Exception as error:  # each of its ways to draw raises kinds of its own
        words = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{suite} draws with MuJoCo, which cannot here ({type(error).__name__}: {words}); try "
            "MUJOCO_GL=egl or MUJOCO_GL=osmesa."
        ) from None


def of_brax(game: Any, states: Any) -> list[np.ndarray]:
    """Seen by the model's first camera, which follows a robot that walks."""
    image, model = package("brax", "brax.io.image"), game.sys.mj_model
    camera = model.camera(0).name if model.ncam else None
    path = [state.pipeline_state for state in each(states)]
    with by_mujoco("brax"):
        return [np.array(x) for x in image.render_array(game.sys, path, HEIGHT, WIDTH, camera)]


def of_playground(game: Any, states: Any) -> list[np.ndarray]:
    model = game.mj_model
    camera = model.camera(0).name if model.ncam else None
    with by_mujoco("playground"):
        return [np.array(x) for x in game.render(each(states), HEIGHT, WIDTH, camera)]


def of_craftax(game: Any, states: Any) -> list[np.ndarray]:
    """The map around the player and what is carried, without the noise of the night."""
    world = type(game).__module__.split(".")[1]  # craftax or craftax_classic
    return enlarged(in_pieces(_craftax(world), states))


@functools.cache
def _craftax(world: str) -> Any:
    renderer = package("craftax", f"craftax.{world}.renderer")
    constants = package("craftax", f"craftax.{world}.constants")
    night = {"do_night_noise": False} if world == "craftax" else {}
    draw = renderer.make_craftax_pixel_renderer(constants.BLOCK_PIXEL_SIZE_IMG, **night)
    key = jax.random.PRNGKey(0)  # of noise in the dark, which is always the same
    return jax.jit(partial(jax.lax.map, lambda state: draw(state.replace(state_rng=key))))


def of_navix(states: Any) -> list[np.ndarray]:
    """The whole grid."""
    return enlarged(in_pieces(_navix(), states))


@functools.cache
def _navix() -> Any:
    rgb = package("navix", "navix.observations").rgb
    cache = package("navix", "navix.rendering.cache").RenderingCache
    return jax.jit(jax.vmap(lambda state: rgb(state.replace(cache=cache.init(state.grid)))))


def of_xminigrid(params: Any, states: Any) -> list[np.ndarray]:
    """The whole grid, with what the agent sees in a lighter tone."""
    draw = package("xminigrid", "xminigrid.rendering.rgb_render").render
    return enlarged([draw(x.grid, x.agent, params.view_size) for x in each(states)])


def of_jumanji(game: Any, states: Any) -> list[np.ndarray]:
    """By the environment's viewer, which draws in matplotlib: a tenth of a second a picture."""
    import matplotlib

    matplotlib.use("Agg")
    viewer = next((x for x in vars(game).values() if hasattr(x, "_display_rgb_array")), None)
    if viewer is None:
        raise ValueError(f"{type(game).__name__} of jumanji has no viewer that draws to an array.")
    found, viewer.figure_size = list[np.ndarray](), (5.0, 5.0)
    # not all of its `render`s return what they have drawn
    viewer._display = lambda figure: found.append(viewer._display_rgb_array(figure))
    with warnings.catch_warnings(action="ignore"):  # that there is no window
        for state in each(states):
            game.render(jax.tree.map(jax.numpy.asarray, state))
    return [np.array(picture[..., :3]) for picture in found]
