"""A small bitmap font of our own, and numbers spelled in it inside a compiled program."""

import jax
import jax.numpy as jnp
import numpy as np

HEIGHT, WIDTH = 7, 5  # dots of a glyph

# Seven rows of five dots for each glyph, in hexadecimal: the leftmost dot is 16.
_ROWS = {
    " ": "00 00 00 00 00 00 00",
    "-": "00 00 00 1f 00 00 00",
    ".": "00 00 00 00 00 0c 0c",
    "?": "0e 11 01 02 04 00 04",
    "0": "0e 11 11 15 11 11 0e",
    "1": "04 0c 04 04 04 04 0e",
    "2": "0e 11 01 02 04 08 1f",
    "3": "1f 02 04 02 01 11 0e",
    "4": "02 06 0a 12 1f 02 02",
    "5": "1f 10 1e 01 01 11 0e",
    "6": "06 08 10 1e 11 11 0e",
    "7": "1f 01 02 04 08 08 08",
    "8": "0e 11 11 0e 11 11 0e",
    "9": "0e 11 11 0f 01 02 0c",
    "A": "0e 11 11 1f 11 11 11",
    "B": "1e 11 11 1e 11 11 1e",
    "C": "0e 11 10 10 10 11 0e",
    "D": "1e 11 11 11 11 11 1e",
    "E": "1f 10 10 1e 10 10 1f",
    "F": "1f 10 10 1e 10 10 10",
    "G": "0e 11 10 17 11 11 0f",
    "H": "11 11 11 1f 11 11 11",
    "I": "0e 04 04 04 04 04 0e",
    "J": "07 02 02 02 02 12 0c",
    "K": "11 12 14 18 14 12 11",
    "L": "10 10 10 10 10 10 1f",
    "M": "11 1b 15 15 11 11 11",
    "N": "11 19 15 13 11 11 11",
    "O": "0e 11 11 11 11 11 0e",
    "P": "1e 11 11 1e 10 10 10",
    "Q": "0e 11 11 11 15 12 0d",
    "R": "1e 11 11 1e 14 12 11",
    "S": "0f 10 10 0e 01 01 1e",
    "T": "1f 04 04 04 04 04 04",
    "U": "11 11 11 11 11 11 0e",
    "V": "11 11 11 11 11 0a 04",
    "W": "11 11 11 15 15 1b 11",
    "X": "11 11 0a 04 0a 11 11",
    "Y": "11 11 0a 04 04 04 04",
    "Z": "1f 01 02 04 08 10 1f",
}
_INDEX = {character: i for i, character in enumerate(_ROWS)}
_DOTS = np.array([[int(row, 16) for row in rows.split()] for rows in _ROWS.values()])
GLYPHS = _DOTS[..., None] >> np.arange(WIDTH)[::-1] & 1  # [glyph, HEIGHT, WIDTH]


def codes(words: str) -> np.ndarray:
    """The glyphs of a text [n], capitals for small letters; "?" for what has none."""
    return np.array([_INDEX.get(c, _INDEX["?"]) for c in words.upper()], np.int32)


def number(value: jax.Array, width: int, decimals: int = 0) -> jax.Array:
    """The glyphs [width] of a number that a program computes, blanks after it.

    What has too many digits, and what is no number, shows the largest that fits.
    """
    places = width - (decimals > 0) - 1  # digits; one place is the sign's
    largest = min(10**places, 2**31) - 1
    value = jnp.asarray(value, jnp.float32)
    size = jnp.minimum(jnp.nan_to_num(jnp.abs(value) * 10**decimals, nan=largest), 2.0**30)
    size = jnp.minimum(jnp.round(size).astype(jnp.int32), largest)
    power = [min(10**k, 2**30) for k in range(places)][::-1]
    power = np.array(power, np.int32)
    digit = size // power % 10 + _INDEX["0"]
    shown = (size >= power) | (np.arange(places) >= places - 1 - decimals)
    digit = jnp.where(shown, digit, _INDEX[" "])
    blanks = places - jnp.sum(shown)
    signed = jnp.concatenate([jnp.full((1,), _INDEX[" "]), digit])
    minus = (jnp.arange(places + 1) == blanks) & (value < 0) & (size > 0)
    spelled = jnp.where(minus, _INDEX["-"], signed)
    if decimals:
        point = jnp.full((1,), _INDEX["."])
        spelled = jnp.concatenate([spelled[:-decimals], point, spelled[-decimals:]])
    return jnp.roll(spelled, -(blanks + 1 - jnp.any(minus)))
