r"""The right answer of a row, read on the host: a number, a fraction, a choice or a string.

It is what stands behind the last `####`, else in the last `\boxed{}`, else all of the text. The
rules are those of `jaxrl.text.answers`, which reads what a model wrote; here one unit, a `$` or a
`%` may stand beside a number.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from jaxrl.text.answers import MARKS, NUMBER_BYTES

NUMBER, CHOICE, STRING = range(3)
MOST_BYTES = 256  # of a string

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
# A word or letter that only names what is counted; one that changes the number is none.
OTHER = r"(?!(?:pi|[bm]illion|thousand|hundred|dozen|[ap]m)\b)"
UNIT = rf"\s?(?:%|°|{OTHER}[A-Za-z]{{2,}}|(?<=\s)[A-WYZa-wyz])?"
DECIMAL = re.compile(rf"([-+]?)\$?([-+]?)({DIGITS}(?:\.\d+)?|\.\d+){UNIT}", re.ASCII)
RATIO = re.compile(
    rf"([-+]?)(?:\\[dt]?frac{{([-+]?\d+)}}{{(\d+)}}|(\d+)\s?/\s?(\d+)){UNIT}", re.ASCII
)
LATEX = {r"\$": "$", r"\%": "%", r"\,": "", r"\!": "", "\u2212": "-", "^\\circ": "°"}


class Gold(NamedTuple):
    """A right answer in one spelling."""

    kind: int
    text: str
    ratio: tuple[int, int] = (0, 0)  # of what was written as a fraction: in lowest terms


def stated(answer: str) -> str:
    r"""What a row's answer says in the end."""
    _, _, behind = answer.rpartition("####")
    return boxed(behind).strip()


def boxed(text: str) -> str:
    r"""What is in the last complete `\boxed{}`, with its own pairs of braces; else the text."""
    for opening in reversed(list(re.finditer(r"\\boxed{", text))):
        depth = 1
        for place in range(opening.end(), len(text)):
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                return text[opening.end() : place]
    return text


def gold(answer: str) -> Gold:
    """The answer of a row; ValueError where nothing can be held against it."""
    said = stated(answer)
    plain = re.sub(r"\\text{([^{}]*)}", r"\1", said)
    for written, meant in LATEX.items():
        plain = plain.replace(written, meant)
    marks = MARKS.decode()
    plain = plain.lstrip(marks.replace(".", "")).rstrip(marks)  # a point in front is a number's
    for opening, closing in ("$$", "()"):
        if plain[:1] == opening and plain[1:].find(closing) == len(plain) - 2:
            plain = plain[1:-1].strip() if not re.fullmatch(r"\([A-E]\)", plain) else plain
    match = RATIO.fullmatch(plain)
    if match and not (match[1] and (match[2] or "")[:1] in ("-", "+")):
        return _ratio(*match.groups())
    if match := DECIMAL.fullmatch(plain):
        before, behind, digits = match.groups()
        if not (before and behind):
            return _decimal(before or behind, digits)
    if match := re.fullmatch(r"\(?([A-E])[).]?", plain):
        return Gold(CHOICE, match[1])
    return _string(said)


def _decimal(sign: str, digits: str) -> Gold:
    text = spelled(Decimal(sign + digits.replace(",", "")))
    if len(text) > NUMBER_BYTES:
        raise ValueError(f"the answer {text[:20]}.. has more than {NUMBER_BYTES} digits and signs.")
    return Gold(NUMBER, text)


def _ratio(sign: str, above: str, below: str, left: str, right: str) -> Gold:
    over, under = int(above or left), int(below or right)
    if under == 0:
        raise ValueError(f"the answer {over}/{under} divides by 0.")
    value = Fraction(-over if sign == "-" else over, under)
    if max(abs(value.numerator), value.denominator) >= 10**9:
        raise ValueError(f"the answer {value} has more than nine digits on a side.")
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    text = str(value)
    if rest == 1:
        text = spelled(Decimal(value.numerator) / Decimal(value.denominator))
    return Gold(NUMBER, text, (value.numerator, value.denominator))


def spelled(value: Decimal) -> str:
    """The one spelling that `jaxrl.text.answers` reads numbers in: `-.5`, `12`, `0`."""
    text = f"{abs(value):f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    text = whole.lstrip("0") + ("." + fraction if fraction else "")
    return ("-" if value < 0 else "") + text if text else "0"


def _string(said: str) -> Gold:
    if "\n" in said:
        raise ValueError(
            r"the answer has several lines and neither #### nor \boxed{}; end it with "
            '"#### ANSWER".'
        )
    text = normal(said)
    if not text:
        raise ValueError("the answer is empty.")
    if len(text.encode()) > MOST_BYTES:
        raise ValueError(
            f"the answer is a string of {len(text.encode())} bytes, of which at most {MOST_BYTES} "
            'can be compared; end it with "#### ANSWER".'
        )
    return Gold(STRING, text)


def normal(text: str) -> str:
    """Letters of ASCII small, white space single, no marks at either end."""
    small = "".join(c.lower() if c.isascii() else c for c in text)
    marks = MARKS.decode()
    return re.sub(r"[ \t\r\n]+", " ", small.strip(marks))
