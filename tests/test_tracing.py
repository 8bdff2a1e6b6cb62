"""The table of where an iteration's time goes."""

import gzip
import json

import jax
import pytest

from jaxrl.train import tracing
from jaxrl.train.tracing import Profiler, part_of, parts_of_ops, table


@pytest.mark.parametrize(
    ("scopes", "part"),
    [
        ("jit(run)/while/body/decode/while/body/dot_general", "decode"),
        ("jit(run)/prompt/encode/gather", "encode"),
        ("jit(run)/learner/jvp(learner)/dot_general", "learner forward"),
        ("jit(run)/learner/transpose(jvp(learner))/dot_general", "learner backward"),
        ("jit(run)/optimiser/mul", "optimiser"),
        ("jit(run)/decoder/mul", "other"),
    ],
)
def test_an_operation_belongs_to_the_innermost_part_that_it_is_in(scopes, part):
    assert part_of(scopes) == part
    hlo = f'  ROOT %dot.1 = f32[2]{{0}} dot(%a, %b), metadata={{op_name="{scopes}" x=1}}\n'
    assert parts_of_ops(hlo) == {"dot.1": part}


def test_what_ran_inside_of_an_operation_is_not_its_own_time():
    operations = [
        (0.0, 100.0, "while"),
        (10.0, 30.0, "dot"),
        (30.0, 50.0, "dot"),
        (60.0, 70.0, "x"),
    ]
    total: dict[str, float] = {}
    for name, own in tracing._own(operations):
        total[name] = total.get(name, 0) + own
    assert total == {"while": 50.0, "dot": 40.0, "x": 10.0}
    lines = table({"dot": 3.0, "add": 1.0}, {"dot": "decode"}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["decode", "3.000", "75.0%"],
        ["other", "1.000", "25.0%"],
    ]


def test_the_second_call_is_traced_and_none_without_a_folder(tmp_path, capsys):
    def double(x):
        with jax.named_scope("rollout"):
            return jax.numpy.sin(x @ x)

    x = jax.numpy.ones((64, 64))
    run = jax.jit(double).lower(x).compile()
    profiler = Profiler(tmp_path)
    for _ in range(3):
        assert profiler(run, x).shape == (64, 64)
    assert capsys.readouterr().out.count("rollout") == 1
    assert "rollout" in (tmp_path / "profile" / "table.txt").read_text()
    with gzip.open(tmp_path / "profile" / "trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
    assert not Profiler(None).is_next and Profiler(None)(run, x).shape == (64, 64)
