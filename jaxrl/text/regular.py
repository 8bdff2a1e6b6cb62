r"""Regular expressions over bytes to automata, by Brzozowski's derivatives (JACM 11(4), 1964).

The syntax is a part of Python's: characters, \d \s \w and escapes, [...] and [^...], groups, | * +
and ?. Classes are those of `re` on a str, restricted to ASCII (so \s holds 0x1c to 0x1f).
"""

from dataclasses import dataclass

import numpy as np

# An expression is one of ("empty",), ("set", bits), ("cat", a, b), ("or", frozenset) and
# ("star", a). Bit b of `bits` is set when the byte b is in the set.
Expression = tuple
EMPTY: Expression = ("empty",)
NOTHING: Expression = ("set", 0)
ALL = (1 << 256) - 1
MOST_STATES = 256  # states are kept as uint8


def bits(members: bytes | range) -> int:
    return sum(1 << byte for byte in set(members))


DIGITS = bits(b"0123456789")
LETTERS = bits(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
CLASSES = {
    "d": DIGITS,
    "s": bits(b" \t\n\r\f\v\x1c\x1d\x1e\x1f"),
    "w": DIGITS | LETTERS | bits(b"_"),
    "t": bits(b"\t"),
    "n": bits(b"\n"),
}


def cat(a: Expression, b: Expression) -> Expression:
    if NOTHING in (a, b):
        return NOTHING
    if a == EMPTY:
        return b
    if b == EMPTY:
        return a
    if a[0] == "cat":  # to the right, so that equal expressions look the same
        return cat(a[1], cat(a[2], b))
    return ("cat", a, b)


def either(*options: Expression) -> Expression:
    flat = {x for o in options for x in (o[1] if o[0] == "or" else (o,))} - {NOTHING}
    if len(flat) < 2:
        return flat.pop() if flat else NOTHING
    return ("or", frozenset(flat))


def star(a: Expression) -> Expression:
    return EMPTY if a in (NOTHING, EMPTY) else a if a[0] == "star" else ("star", a)


def matches_empty(e: Expression) -> bool:
    match e:
        case ("empty",) | ("star", _):
            return True
        case ("cat", a, b):
            return matches_empty(a) and matches_empty(b)
        case ("or", options):
            return any(map(matches_empty, options))
    return False


def derivative(e: Expression, byte: int) -> Expression:
    """What may follow `byte` in a text that matches e."""
    match e:
        case ("set", members):
            return EMPTY if members >> byte & 1 else NOTHING
        case ("cat", a, b):
            rest = cat(derivative(a, byte), b)
            return either(rest, derivative(b, byte)) if matches_empty(a) else rest
        case ("or", options):
            return either(*(derivative(option, byte) for option in options))
        case ("star", a):
            return cat(derivative(a, byte), e)
    return NOTHING


def sets(e: Expression) -> set[int]:
    """Every set of bytes in an expression."""
    match e:
        case ("set", members):
            return {members}
        case ("or", options):
            return set().union(*map(sets, options))
    return set().union(*map(sets, e[1:]))


@dataclass(frozen=True)
class Automaton:
    """From state s a byte b leads to table[s, byte_class[b]]; it starts in state 0."""

    byte_class: np.ndarray  # uint8 [256]
    table: np.ndarray  # uint8 [states, classes]
    accepts: np.ndarray  # bool [states]


def automaton(e: Expression) -> Automaton:
    """The smallest automaton up to states that behave alike but are written differently."""
    kinds = sorted(sets(e))
    signature = [tuple(members >> byte & 1 for members in kinds) for byte in range(256)]
    classes = {s: signature.index(s) for s in dict.fromkeys(signature)}  # -> a byte of the class
    order = list(classes)
    states, rows = {e: 0}, []
    for state in (queue := [e]):
        row = []
        for byte in classes.values():
            following = derivative(state, byte)
            if following not in states:
                states[following] = len(states)
                queue.append(following)
            row.append(states[following])
        rows.append(row)
        if len(states) > MOST_STATES:
            raise ValueError(f"more than {MOST_STATES} states; make the pattern simpler.")
    return Automaton(
        np.asarray([order.index(s) for s in signature], np.uint8),
        np.asarray(rows, np.uint8),
        np.asarray([matches_empty(state) for state in queue]),
    )


class Reader:
    """Reads a pattern into an expression; what Python knows and this does not is a ValueError."""

    def __init__(self, pattern: str):
        self.pattern, self.at = pattern, 0

    def read(self) -> Expression:
        e = self.choice()
        if self.peek():
            raise self.refusal()
        return e

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self, wanted: str = "") -> bool:
        """Whether `wanted` comes next; it is then read."""
        found = self.pattern.startswith(wanted, self.at)
        self.at += len(wanted) * found
        return found

    def refusal(self) -> ValueError:
        return ValueError(
            f"pattern={self.pattern!r} has {self.peek() or 'its end'!r} at {self.at}, where no "
            r"such thing is understood; use characters, \d, \s, [a-z], (a|b), *, + and ?."
        )

    def choice(self) -> Expression:
        options = [self.sequence()]
        while self.take("|"):
            options.append(self.sequence())
        return either(*options)

    def sequence(self) -> Expression:
        e = EMPTY
        while self.peek() not in ("", "|", ")"):
            e = cat(e, self.repeated())
        return e

    def repeated(self) -> Expression:
        e = self.atom()
        if self.take("*"):
            e = star(e)
        elif self.take("+"):
            e = cat(e, star(e))
        elif self.take("?"):
            e = either(e, EMPTY)
        if self.peek() in ("*", "+", "?"):
            raise self.refusal()
        return e

    def atom(self) -> Expression:
        if self.take("("):
            self.take("?:")
            e = self.choice()
            if not self.take(")"):
                raise self.refusal()
            return e
        if self.take("["):
            return ("set", self.members())
        if self.peek() in ("", *"*+?{}.^$]"):
            raise self.refusal()
        return ("set", self.character())

    def character(self) -> int:
        """One character or escape, as a set."""
        symbol = self.peek()
        escaped = symbol == "\\"
        if escaped:
            self.at += 1
            symbol = self.peek()
        unknown = escaped and symbol.isalnum() and symbol not in CLASSES
        if not symbol or unknown or ord(symbol) > 127:
            raise self.refusal()
        self.at += 1
        return CLASSES[symbol] if escaped and symbol in CLASSES else 1 << ord(symbol)

    def members(self) -> int:
        """What stands between [ and ]."""
        negated, found = self.take("^"), 0
        while not self.take("]"):
            first = self.character()
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                last = self.character()
                if first.bit_count() != 1 or last.bit_count() != 1 or last < first:
                    raise self.refusal()
                first = bits(range(first.bit_length() - 1, last.bit_length()))
            found |= first
        return ALL ^ found if negated else found
