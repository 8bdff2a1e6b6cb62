"""Films of episodes: panels of pictures with a head, put together and written as GIF or MP4."""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import frames
from jaxrl.envs.pictures import in_pieces
from jaxrl.files import reason_of

ENDINGS = (".gif", ".mp4")
WIDEST = 1300  # pixels of a film; wider panels are halved
COLOURS = 64  # of a GIF
SAMPLE = 9  # pictures from which a GIF takes its colours
GAP = 4  # pixels between two panels
HOLD = 1.5  # s that the last picture stays


@dataclass(frozen=True)
class Panel:
    """One or several episodes in a row; numbers for each of the pictures."""

    title: str
    draw: Callable[[np.ndarray], Iterator[np.ndarray]]  # pictures [H, W, 3] of these numbers
    episode_return: list[float]  # until then
    episode_length: list[int]
    ending: list[str]  # "" unless this state ends an episode: terminated, truncated or cut


def check(out: Path) -> None:
    """ValueError for an ending that is none of a film's, ImportError for what writes it."""
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f"out={out} must end in {' or '.join(ENDINGS)}; try watch.gif.")
    if out.suffix.lower() == ".mp4":
        _ffmpeg()


def write(out: Path, panels: Sequence[Panel], fps: int) -> int:
    """Write a film whole or not at all; how many pictures it has."""
    count = max(len(panel.ending) for panel in panels)
    partial = out.with_name(f".{out.stem}.tmp{out.suffix}")
    film = _film(panels, np.arange(count))
    try:
        if out.suffix.lower() == ".gif":
            few = _film(panels, np.unique(np.linspace(0, count - 1, SAMPLE).astype(int)))
            _write_gif(partial, film, count, fps, list(few))
        else:
            _write_mp4(partial, film, fps)
        os.replace(partial, out)
    except OSError as error:
        raise ValueError(f"out={out} cannot be written: {reason_of(error)}; try another.") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def _film(panels: Sequence[Panel], times: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures of these times: each panel stays at its last, sides are even, as MP4 wants."""
    of_panels = [_pictures(panel, times, len(panels)) for panel in panels]
    for row in zip(*of_panels, strict=True):
        gap = np.full((row[0].shape[0], GAP, 3), 255, np.uint8)
        whole = np.concatenate([x for picture in row for x in (gap, picture)][1:], 1)
        odd = [(0, size % 2) for size in whole.shape[:2]]
        yield np.pad(whole, [*odd, (0, 0)], mode="edge")


def _pictures(panel: Panel, times: np.ndarray, of: int) -> Iterator[np.ndarray]:
    """A panel's pictures under a line of words and one of numbers; wide ones are halved."""
    last = len(panel.ending) - 1
    index, picture = times[times < last], None
    index = np.append(index, last) if len(index) < len(times) else index
    drawn, numbers = panel.draw(index), None
    for i, picture in zip(index, drawn, strict=True):
        while of * picture.shape[1] > WIDEST:
            picture = _halved(picture)
        width = picture.shape[1]
        numbers = numbers or in_pieces(_head(width), _numbers(panel, index))
        title = _title(width, f"{panel.title} {panel.ending[i]}".strip())
        picture = np.concatenate([title, next(numbers), picture])
        yield picture
    for _ in times[len(index) :]:
        yield picture  # pyright: ignore


def _numbers(panel: Panel, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.array(panel.episode_length, np.int32)
    return length[index], np.array(panel.episode_return, np.float32)[index]


@cache
def _head(width: int) -> Callable[[Any], Any]:
    def draw(length: jax.Array, paid: jax.Array) -> jax.Array:
        return frames.head(width, {"step": (length, 0), "return": (paid, 2)})

    drawn = jax.jit(jax.vmap(draw))
    return lambda numbers: drawn(*numbers)


@cache
def _title(width: int, words: str) -> np.ndarray:
    return np.asarray(jax.jit(partial(frames.title, width, words))())


def _halved(picture: np.ndarray) -> np.ndarray:
    """The means of squares of four pixels."""
    height, width = (size - size % 2 for size in picture.shape[:2])
    quarters = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return np.round(quarters.mean((1, 3))).astype(np.uint8)


def _write_gif(
    path: Path, film: Iterator[np.ndarray], count: int, fps: int, few: list[np.ndarray]
) -> None:
    """One palette for all pictures, of a few of them: their own would flicker."""
    from PIL import Image

    palette = Image.fromarray(np.concatenate(few)).quantize(COLOURS)
    how: dict[str, Any] = {"palette": palette, "dither": Image.Dither.NONE}
    images = (Image.fromarray(picture).quantize(**how) for picture in film)
    duration = [round(1000 / fps)] * (count - 1) + [round(1000 * HOLD)]
    saved: dict[str, Any] = {"save_all": True, "loop": 0, "optimize": True}
    next(images).save(path, format="GIF", append_images=images, duration=duration, **saved)


def _write_mp4(path: Path, film: Iterator[np.ndarray], fps: int) -> None:
    last = next(film)
    size = last.shape[1], last.shape[0]
    writer = _ffmpeg().write_frames(str(path), size, fps=fps, macro_block_size=2)
    try:
        writer.send(None)
        writer.send(np.ascontiguousarray(last))
        for last in film:
            writer.send(np.ascontiguousarray(last))
        for _ in range(round(HOLD * fps)):
            writer.send(np.ascontiguousarray(last))
    finally:
        writer.close()


def _ffmpeg() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ImportError(
            f"a film in MP4 needs imageio-ffmpeg: pip install 'jaxrl[video]' ({error}); "
            "or try watch.gif."
        ) from error
