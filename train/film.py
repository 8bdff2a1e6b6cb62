"""Films of episodes: panels of pictures with a head, put together and written as GIF or MP4."""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl import frames
from jaxrl.files import reason_of

ENDINGS = (".gif", ".mp4")
WIDEST = 1300  # pixels of a film; wider panels are halved
COLOURS = 64  # of a GIF
HOLD = 1.5  # s that the last picture stays


@dataclass(frozen=True)
class Panel:
    """One or several episodes in a row; a picture with its numbers for each state."""

    title: str
    pictures: list[np.ndarray]  # uint8 [H, W, 3]
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
    shown = [_with_head(panel, len(panels)) for panel in panels]
    count = max(len(pictures) for pictures in shown)
    film = _side_by_side(shown, count)
    partial = out.with_name(f".{out.stem}.tmp{out.suffix}")
    try:
        (_write_gif if out.suffix.lower() == ".gif" else _write_mp4)(partial, film, count, fps)
        os.replace(partial, out)
    except OSError as error:
        raise ValueError(f"out={out} cannot be written: {reason_of(error)}; try another.") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def _with_head(panel: Panel, of: int) -> list[np.ndarray]:
    """The panel's pictures under a line of words and one of numbers."""
    pictures = panel.pictures
    while of * pictures[0].shape[1] > WIDEST:
        pictures = [_halved(picture) for picture in pictures]
    width = pictures[0].shape[1]
    numbers = _heads(width, panel.episode_length, panel.episode_return)
    return [
        np.concatenate([_title(width, f"{panel.title} {ending}".strip()), head, picture])
        for picture, head, ending in zip(pictures, numbers, panel.ending, strict=True)
    ]


def _heads(width: int, length: list[int], paid: list[float]) -> np.ndarray:
    draw = jax.jit(jax.vmap(lambda t, x: frames.head(width, {"step": (t, 0), "return": (x, 2)})))
    return np.asarray(draw(np.int32(length), np.float32(paid)))


@cache
def _title(width: int, words: str) -> np.ndarray:
    return np.asarray(jax.jit(partial(frames.title, width, words))())


def _halved(picture: np.ndarray) -> np.ndarray:
    """The means of squares of four pixels."""
    height, width = (size - size % 2 for size in picture.shape[:2])
    quarters = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return np.round(quarters.mean((1, 3))).astype(np.uint8)


def _side_by_side(panels: list[list[np.ndarray]], count: int) -> Iterator[np.ndarray]:
    """Each panel stays at its last picture; sides are even, as MP4 wants them."""
    for t in range(count):
        row: list[np.ndarray] = []
        for pictures in panels:
            row += [np.full((pictures[0].shape[0], 4, 3), 255, np.uint8)] if row else []
            row.append(pictures[min(t, len(pictures) - 1)])
        whole = np.concatenate(row, 1)
        odd = [(0, size % 2) for size in whole.shape[:2]]
        yield np.pad(whole, [*odd, (0, 0)], mode="edge")


def _write_gif(path: Path, film: Iterable[np.ndarray], count: int, fps: int) -> None:
    from PIL import Image

    images = [Image.fromarray(picture) for picture in film]
    # one palette for all of them: their own would flicker
    few = images[:: max(1, count // 8)][:8] + images[-1:]
    sample = Image.new("RGB", (few[0].width, sum(image.height for image in few)))
    for i, image in enumerate(few):
        sample.paste(image, (0, i * image.height))
    palette = sample.quantize(COLOURS)
    first, *others = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    duration = [round(1000 / fps)] * (count - 1) + [round(1000 * HOLD)]
    how: dict[str, Any] = {"save_all": True, "loop": 0, "optimize": True}
    first.save(path, format="GIF", append_images=others, duration=duration, **how)


def _write_mp4(path: Path, film: Iterable[np.ndarray], count: int, fps: int) -> None:
    last, writer = None, None
    try:
        for picture in film:
            if writer is None:
                size = picture.shape[1], picture.shape[0]
                writer = _ffmpeg().write_frames(str(path), size, fps=fps, macro_block_size=2)
                writer.send(None)
            writer.send(last := np.ascontiguousarray(picture))
        for _ in range(round(HOLD * fps)):
            writer.send(last)  # pyright: ignore
    finally:
        if writer is not None:
            writer.close()


def _ffmpeg() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ImportError(
            f"a film in MP4 needs imageio-ffmpeg: pip install 'jaxrl[video]' ({error}); "
            "or try watch.gif."
        ) from error
