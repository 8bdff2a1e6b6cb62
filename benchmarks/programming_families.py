"""The kinds of problems that `programming_tasks.py` draws from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Problems that differ in what stands in braces; `body` is the function without its head."""

    level: int
    name: str  # of the function
    parameters: str
    says: str  # what it returns
    body: str
    inputs: tuple[str, ...]  # kinds, see INPUTS of `programming_tasks.py`


def one(level: int, name: str, parameters: str, says: str, result: str, *inputs: str) -> Family:
    """A function of one line."""
    return Family(level, name, parameters, says, f"return {result}", inputs)


EASY = (
    one(1, "add_{n}", "x", "x plus {n}", "x + {n}", "int"),
    one(1, "subtract_{n}", "x", "x minus {n}", "x - {n}", "int"),
    one(1, "times_{n}", "x", "x times {n}", "x * {n}", "int"),
    one(1, "square_plus_{n}", "x", "the square of x plus {n}", "x * x + {n}", "int"),
    one(1, "from_{n}", "x", "{n} minus x", "{n} - x", "int"),
    one(1, "is_above_{n}", "x", "True if x is greater than {n}, else False", "x > {n}", "int"),
    one(1, "is_multiple_of_{n}", "x", "whether {n} divides x", "x % {n} == 0", "int"),
    one(1, "repeat_{n}", "s", "the string s repeated {n} times", "s * {n}", "word"),
    one(1, "first_{n}", "s", "the first {n} characters of the string s", "s[:{n}]", "word"),
    one(1, "add_{c}", "s", "the string s followed by the letter {c}", 's + "{c}"', "word"),
    one(1, "count_{c}", "s", "how often the letter {c} is in s", 's.count("{c}")', "word"),
    one(1, "has_{c}", "s", "True if the letter {c} is in s, else False", '"{c}" in s', "word"),
    one(1, "add", "a, b", "the sum of a and b", "a + b", "int", "int"),
    one(1, "multiply", "a, b", "the product of a and b", "a * b", "int", "int"),
    one(1, "larger", "a, b", "the larger of a and b", "max(a, b)", "int", "int"),
    one(1, "length", "xs", "how many elements the list xs has", "len(xs)", "ints"),
    one(1, "upper", "s", "the string s in upper case", "s.upper()", "word"),
    one(1, "reverse", "s", "the string s backwards", "s[::-1]", "word"),
)
MIDDLE = (
    one(
        2,
        "count_{which}",
        "xs",
        "how many of the numbers of the list xs are {which_says}",
        "len([x for x in xs if {which_code}])",
        "ints",
    ),
    one(
        2,
        "sum_{which}",
        "xs",
        "the sum of the numbers of the list xs that are {which_says}",
        "sum([x for x in xs if {which_code}])",
        "ints",
    ),
    one(
        2,
        "{change}_{which}",
        "xs",
        "the list of the numbers of xs that are {which_says}, each of them {change_says}",
        "[{change_code} for x in xs if {which_code}]",
        "ints",
    ),
    one(
        2,
        "every_{n}",
        "xs",
        "the list of the elements of xs at the places 0, {n}, 2 times {n} and so on",
        "xs[::{n}]",
        "ints",
    ),
    one(
        2,
        "longer_than_{n}",
        "words",
        "the list of the words that have more than {n} letters",
        "[w for w in words if len(w) > {n}]",
        "words",
    ),
    one(
        2,
        "start_with_{c}",
        "words",
        "how many of the words start with the letter {c}",
        'len([w for w in words if w.startswith("{c}")])',
        "words",
    ),
    one(
        2,
        "without_{c}",
        "s",
        "the string s without the letter {c}, which may stand there in either case",
        's.replace("{c}", "").replace("{c}".upper(), "")',
        "text",
    ),
    one(
        2,
        "between",
        "x, low, high",
        "low if x is below low, high if x is above high, else x",
        "low if x < low else high if x > high else x",
        "int",
        "low",
        "high",
    ),
    one(2, "sorted_down", "xs", "the numbers of xs, largest first", "sorted(xs)[::-1]", "ints"),
    one(
        2,
        "initials",
        "s",
        "the first letters of the words of s as one string, in upper case",
        '"".join([w[0] for w in s.split()]).upper()',
        "text",
    ),
    one(
        2,
        "reverse_words",
        "s",
        "the words of s in reverse order, with single spaces between them",
        '" ".join(s.split()[::-1])',
        "text",
    ),
)
HARD = (
    Family(
        3,
        "digit_sum_{n}",
        "x",
        "the sum of the digits of the whole number x (0 or more) written in base {n}",
        "total = 0\nwhile x > 0:\n    total += x % {n}\n    x //= {n}\nreturn total",
        ("natural",),
    ),
    Family(
        3,
        "shift_{n}",
        "s",
        "the string s with each small letter moved {n} places on in the alphabet, from z on to a, "
        "and everything else as it was",
        'result = ""\n'
        "for c in s:\n"
        '    if "a" <= c <= "z":\n'
        '        c = chr((ord(c) - ord("a") + {n}) % 26 + ord("a"))\n'
        "    result += c\n"
        "return result",
        ("text",),
    ),
    Family(
        3,
        "sequence_{n}",
        "k",
        "the number at place k of the sequence that has {n} at places 0 and 1 and goes on with the "
        "sum of the two before",
        "a, b = {n}, {n}\nfor _ in range(k):\n    a, b = b, a + b\nreturn a",
        ("count",),
    ),
    Family(
        3,
        "pairs_with_sum_{n}",
        "xs",
        "how many pairs of places i < j of the list xs hold numbers whose sum is {n}",
        "total = 0\n"
        "for i in range(len(xs)):\n"
        "    for j in range(i + 1, len(xs)):\n"
        "        if xs[i] + xs[j] == {n}:\n"
        "            total += 1\n"
        "return total",
        ("digits",),
    ),
    Family(
        3,
        "chunks_of_{n}",
        "xs",
        "the list xs cut into lists of {n} elements, the last of which may be shorter",
        "return [xs[i : i + {n}] for i in range(0, len(xs), {n})]",
        ("ints",),
    ),
    Family(
        3,
        "rotate_{n}",
        "xs",
        "the list xs turned by {n} places: its first {n} elements go to the end, one after the "
        "other, however short the list is",
        "if not xs:\n    return []\nk = {n} % len(xs)\nreturn xs[k:] + xs[:k]",
        ("ints",),
    ),
    Family(
        3,
        "runs_of_{n}",
        "s",
        "how many runs of the same character in the string s are at least {n} long",
        "total, length = 0, 0\n"
        "for i in range(len(s)):\n"
        "    length = length + 1 if i > 0 and s[i] == s[i - 1] else 1\n"
        "    if length == {n}:\n"
        "        total += 1\n"
        "return total",
        ("runs",),
    ),
    Family(
        3,
        "encode",
        "s",
        "the string s with each run of the same letter written as the letter and its length, as "
        "a2b1 for aab",
        'result, i = "", 0\n'
        "while i < len(s):\n"
        "    j = i\n"
        "    while j < len(s) and s[j] == s[i]:\n"
        "        j += 1\n"
        "    result += s[i] + str(j - i)\n"
        "    i = j\n"
        "return result",
        ("runs",),
    ),
    Family(
        3,
        "primes_below",
        "k",
        "the list of all primes smaller than k",
        "found = []\n"
        "for x in range(2, k):\n"
        "    if all([x % p for p in found]):\n"
        "        found.append(x)\n"
        "return found",
        ("natural",),
    ),
    Family(
        3,
        "balanced",
        "s",
        "True if the brackets () and [] of s are closed in the right order, else False",
        "open_ones = []\n"
        "for c in s:\n"
        '    if c in "([":\n'
        "        open_ones.append(c)\n"
        '    elif not open_ones or open_ones.pop() + c not in ("()", "[]"):\n'
        "        return False\n"
        "return not open_ones",
        ("brackets",),
    ),
)
FAMILIES = EASY + MIDDLE + HARD

WHICH = {  # name: (words, code)
    "even": ("even", "x % 2 == 0"),
    "odd": ("odd", "x % 2 == 1"),
    "positive": ("greater than 0", "x > 0"),
    "negative": ("smaller than 0", "x < 0"),
    "above_{n}": ("greater than {n}", "x > {n}"),
    "below_{n}": ("smaller than {n}", "x < {n}"),
    "multiples_of_{n}": ("multiples of {n}", "x % {n} == 0"),
}
CHANGE = {
    "square": ("squared", "x * x"),
    "double": ("doubled", "2 * x"),
    "negate": ("with its sign changed", "-x"),
    "plus_{n}": ("plus {n}", "x + {n}"),
}
