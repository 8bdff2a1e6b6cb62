"""Tool calls read inside jit are those that json.loads and a checker in Python find."""

import json
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.text import Text, calls, literal, to_str, tools
from jaxrl.text.call_writer import call_bytes, write_call
from jaxrl.text.tools import Parameter, Tool

TOOLS = (
    Tool(
        "email_send_email",
        "Send an email.",
        (Parameter("recipient"), Parameter("subject", size=12), Parameter("body", size=40)),
    ),
    Tool("add", "", (Parameter("a", "integer"), Parameter("b", "integer", required=False))),
    Tool("scale", "", (Parameter("by", "number"), Parameter("wrap", "boolean", required=False))),
    Tool("now"),
)
ROOM, MOST = 220, 3
CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def spoken(said):
    """Texts [n] on the host."""
    data = np.zeros((len(said), ROOM), np.uint8)
    for i, raw in enumerate(said):
        data[i, : len(raw)] = np.frombuffer(raw, np.uint8)
    length = np.asarray([len(raw) for raw in said], np.int32)
    return Text(data, length, np.zeros(len(said), bool))


@jax.jit
def read(text):
    return jax.vmap(lambda x: calls.read_calls(TOOLS, x, MOST))(text)


def refuse(name):
    raise ValueError(name)


def checked(raw):
    """[(error, tool, arguments)] of a response, by `json.loads`."""
    try:
        said = raw.decode()
    except UnicodeDecodeError:
        said = raw.decode("latin1")
        return [(calls.NO_JSON, "", {})] * len(found(said))
    return [one(text) for text in found(said)]


def found(said):
    if "<tool_call>" in said:
        return CALL.findall(said)
    return [said] if said.lstrip(" \t\r\n")[:1] == "{" else []


def one(text):
    pairs = []

    def keep(items):
        pairs.extend(items)
        return dict(items)

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=keep)
        json.dumps([pairs, value], ensure_ascii=False).encode()
    except ValueError:
        return calls.NO_JSON, "", {}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return calls.NO_CALL, "", {}
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict):
        return calls.NO_CALL, "", {}
    tool = next((tool for tool in TOOLS if tool.name == value["name"]), None)
    if tool is None:
        return calls.NO_TOOL, "", {}
    declared = {p.name: p for p in tool.parameters}
    if set(arguments) - set(declared):
        return calls.UNKNOWN, "", {}
    if any(p.required and p.name not in arguments for p in tool.parameters):
        return calls.MISSING, "", {}
    if not all(has_type(x, declared[name].type) for name, x in arguments.items()):
        return calls.TYPE, "", {}
    if not all(fits(x, declared[name]) for name, x in arguments.items()):
        return calls.SIZE, "", {}
    return calls.FINE, tool.name, arguments


def has_type(value, type_):
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    return isinstance(value, kinds[type_]) and (type_ == "boolean" or not isinstance(value, bool))


def fits(value, parameter):
    if parameter.type == "string":
        return len(value.encode()) <= parameter.size
    return abs(value) < (2**31 if parameter.type == "integer" else 3.4e38)


def compare(said):
    got = jax.device_get(read(spoken(said)))
    for i, raw in enumerate(said):
        wanted = checked(raw)
        assert got.count[i] == len(wanted), raw
        for c, (error, name, arguments) in enumerate(wanted[:MOST]):
            assert got.error[i, c] == error, (raw, calls.ERRORS[error])
            if error == calls.FINE:
                tool = TOOLS[got.tool[i, c]]
                assert tool.name == name, raw
                for p, parameter in enumerate(tool.parameters):
                    assert got.given[i, c, p] == (parameter.name in arguments), raw
                    if got.given[i, c, p]:
                        agree(got, (i, c, p), parameter, arguments, raw)


def agree(got, at, parameter, arguments, raw):
    text = got.text.bytes[at][: got.text.length[at]].tobytes()
    wanted = arguments[parameter.name]
    if parameter.type == "string":
        assert text == wanted.encode(), raw
    elif parameter.type == "integer":
        assert got.integer[at] == wanted, raw
    else:
        assert got.number[at] == pytest.approx(float(wanted), rel=1e-6, abs=1e-37), raw


TEXTS = [
    "",
    "Hi",
    "a b",
    "\u00e9\u20ac",
    "\U0001f600!",
    'q"\\/',
    "x\ny\t",
    "</tool_call>",
    "\x7f\x01",
    "long" * 4,
]
INTEGERS = [0, -0, 7, -12, 2**31 - 1, -(2**31), 2**31, 10**20]
NUMBERS = [0.5, -1.25e-3, 3, 1e10, 2.5e37, 1e39, 123456789.123, 0.1, 1e-9]
OTHERS = [None, True, False, [1, "x"], {"a": {"b": []}}, 1.5, "1"]


def random_call(rng):
    tool = rng.choice(TOOLS)
    arguments = {}
    for p in rng.sample(tool.parameters, len(tool.parameters)):
        pool = {"string": TEXTS, "integer": INTEGERS, "number": NUMBERS, "boolean": [True, False]}
        pool = OTHERS if rng.random() < 0.04 else pool[p.type]
        if rng.random() < 0.95:
            arguments[p.name] = rng.choice(pool)
    if rng.random() < 0.04:
        arguments[rng.choice(["c", "nam\u00e9", ""])] = 1
    name = tool.name if rng.random() < 0.95 else rng.choice(["subtract", "ad", "addx"])
    key = rng.choice(["arguments", "arguments", "parameters"])
    items = [("name", name), (key, arguments)]
    if rng.random() < 0.05:
        items.append(rng.choice([("id", 3), ("name", "add"), (key, {"a": 1}), ("arguments", [])]))
    rng.shuffle(items)
    parts = [f"{space(rng)}{text(rng, k)}{space(rng)}:{text(rng, v)}" for k, v in items]
    return "{" + ",".join(parts) + space(rng) + "}"


def text(rng, value):
    """JSON in one of its spellings."""
    if isinstance(value, dict):
        items = [f"{space(rng)}{text(rng, k)}:{space(rng)}{text(rng, v)}" for k, v in value.items()]
        return "{" + ",".join(items) + space(rng) + "}"
    if isinstance(value, str) and rng.random() < 0.2:
        units = value.encode("utf-16-be")
        pairs = zip(units[::2], units[1::2], strict=True)
        return '"' + "".join(f"\\u{high:02X}{low:02x}" for high, low in pairs) + '"'
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def space(rng):
    return rng.choice(["", "", "", " ", "\n", "\t \r"])


def response(rng):
    calls = [space(rng) + random_call(rng) + space(rng) for _ in range(2)]
    wrapped = [f"<tool_call>{call}</tool_call>" for call in calls]
    kind = rng.random()
    said = rng.choice(["", "Let me see.\n"]) + "\n".join(wrapped[: 1 + (kind < 0.2)])
    if kind > 0.7:
        said = space(rng) + random_call(rng) + space(rng)
    if kind > 0.97:
        said = rng.choice(["Done.", "", said[:-12], "<tool_call>", "<tool_call></tool_call>x"])
    return said.encode()[:ROOM]


def mutated(rng, raw):
    """A byte or a piece more, less, other or elsewhere."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(data) + 1)
        piece = bytes([rng.choice(b'{}[]:,"\\u0123e+-.tfn \nD8dcx\xff\xc3')])
        how = rng.randrange(4)
        if how == 0:
            data[at:at] = piece
        elif how == 1:
            del data[at : at + rng.randint(1, 3)]
        elif how == 2:
            data[at : at + 1] = piece
        else:
            end = at + rng.randint(1, 8)
            data[at:at] = data[at:end]
    return bytes(data[:ROOM])


CORNERS = [
    rb'{"name":"add","arguments":{"a":1},"arguments":{"a":2}}',
    rb'{"name":"add","parameters":{"a":1},"arguments":{"a":2}}',
    rb'{"n\u0061me":"\u0061dd","arguments":{"\u0061":-0}}',
    rb'{"name":"scale","arguments":{"by":0.000000000000000000012345e+21}}',
    rb'{"name":"scale","arguments":{"by":1E400}}',
    rb'{"name":"scale","arguments":{"by":100000000000000000000}}',
    rb'{"name":"now"}',
    rb'{"name":"now","arguments":{"x":{"name":"add"}}}',
    rb'{"name":["now"],"arguments":{}}',
    rb'{"name":"email_send_email","arguments":{"recipient":"\ud83d","subject":"","body":""}}',
    rb'{"name":"email_send_email","arguments":{"recipient":"\ud83d\ude00","subject":"","body":""}}',
    b'<tool_call>{"name":"now"}',
    b'<tool_call>{"name":"now"}</tool_cal',
    b'<tool_call>{"name":"now"}</tool_call><tool_call>{"name":"now"',
    b'Now: {"name":"now"}',
    b'{"name":"now"} {"name":"now"}',
    b'{"name":"email_send_email","parameters":{"recipient":"","subject":"123456789012","body":""}}',
    b'{"name":"email_send_email","parameters":{"recipient":"","subject":"1234567890123","body":""}}',
    '{"name":"email_send_email","arguments":{"recipient":"","subject":"\u00e9\u20ac\U0001f600\u00e4a",'
    '"body":""}}'.encode(),
    '{"name":"email_send_email","arguments":{"recipient":"","subject":"\u00e9\u20ac\U0001f600\u00e4ab",'
    '"body":""}}'.encode(),
    b'{"name":"email_send_email","arguments":{"recipient":"","subject":"' + rb"\u00e9" * 6 + b'",'
    b'"body":""}}',
    b'{"name":"email_send_email","arguments":{"recipient":"","subject":"' + rb"\u00e9" * 7 + b'",'
    b'"body":""}}',
    b'<tool_call><tool_call>{"name":"now"}</tool_call></tool_call>',
    b"<tool_call>[]</tool_call>" * 5,
    b"[" * 30 + b"]" * 30,
    b'{"name":"now","x":' + b"[" * 30 + b"]" * 30 + b"}",
]


def test_ten_thousand_calls_and_mutations_are_read_as_python_reads_them():
    rng = random.Random(0)
    whole = [response(rng) for _ in range(5000)]
    said = whole + [mutated(rng, raw) for raw in whole] + CORNERS
    wanted = [error for raw in said for error, _, _ in checked(raw)]
    shares = np.bincount(wanted, minlength=len(calls.ERRORS))
    assert (shares > 20).all(), shares  # each outcome is tried
    compare(said)


def test_what_cannot_be_declared_is_refused():
    with pytest.raises(ValueError, match=r"type=array of the parameter 'x'.*try one of string"):
        Parameter("x", "array")
    with pytest.raises(ValueError, match=r"name='my tool' of a tool.*try my_tool"):
        Tool("my tool")
    with pytest.raises(ValueError, match="twice"):
        Tool("add", "", (Parameter("a"), Parameter("a")))
    with pytest.raises(ValueError, match="twice"):
        calls.read_calls(
            [TOOLS[1], TOOLS[1]], Text(np.zeros(4, np.uint8), np.int32(0), np.asarray(False))
        )


def test_a_call_is_written_as_python_writes_it():
    def write(given):
        values = [literal(text, 8) for text in ('a"b\\', "", "x")]
        value = jax.tree.map(lambda *x: jnp.stack(x), *values)
        numbers = jax.tree.map(lambda *x: jnp.stack(x), *[literal(t, 8) for t in ("12", "-3", "")])
        call = write_call(TOOLS, jnp.int32(0), value, given)
        return call, write_call(TOOLS, jnp.int32(1), numbers, given.at[2].set(False))

    write = jax.jit(write)
    for given in ([True, True, True], [False, True, True], [True, False, False]):
        texts = map(to_str, write(jnp.asarray(given)))
        names = [("recipient", 'a"b\\'), ("subject", ""), ("body", "x")], [("a", 12), ("b", -3)]
        for text, tool, pairs in zip(texts, TOOLS, names, strict=False):
            there = {name: x for (name, x), is_there in zip(pairs, given, strict=False) if is_there}
            assert text == json.dumps({"name": tool.name, "arguments": there})
            assert len(text) <= call_bytes(TOOLS)


def test_the_schema_is_what_templates_take():
    assert TOOLS[1].schema["function"]["parameters"] == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    }
    first, second, *_ = tools.schemas(TOOLS)
    assert first.startswith('{"type": "function"') and json.loads(second) == TOOLS[1].schema
