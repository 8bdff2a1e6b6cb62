"""Templates: how long their texts can become, and what they render."""

import jax
import jax.numpy as jnp
import pytest
from quick import jit

from jaxrl.language import LanguageEnvironment
from jaxrl.text import Template, literal, to_str

PROMPT = Template(r"Guess {low}-{high}, {low} first: \boxed{{N}}", {"low": -99, "high": 10})


def test_the_size_is_that_of_the_widest_values_in_every_place():
    assert PROMPT.size == len(r"Guess -99-10, -99 first: \boxed{N}")
    assert Template("{pegs}|", {"pegs": "32||1"}).size == 6
    assert Template("é").size == 2
    assert Template("").size == 0


def test_a_template_renders_as_python_formats_inside_jit():
    said = jit(lambda low, high: PROMPT.render(low=low, high=high))(jnp.int32(-7), jnp.int32(3))
    assert to_str(said) == r"Guess -7-3, -7 first: \boxed{N}"
    assert said.capacity == PROMPT.size and not said.cut


def test_what_is_wider_than_its_field_is_told_in_cut():
    narrow = Template("{n}!", {"n": 9})
    assert not narrow.render(n=9).cut
    assert narrow.render(n=10).cut and to_str(narrow.render(n=10)) == "10"
    assert not narrow.render(capacity=8, n=literal("long")).cut


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("{}", {}, "may hold plain names in braces only"),
        ("{n:03d}", {"n": 1}, "may hold plain names in braces only"),
        ("{n}", {}, r"has the fields \['n'\] and not \[\]"),
        ("{n}", {"n": 1, "m": 2}, r"has the fields \['n'\] and not \['m', 'n'\]"),
    ],
)
def test_a_template_and_its_fields_must_agree(text, fields, message):
    with pytest.raises(ValueError, match=message):
        Template(text, fields)
    with pytest.raises(ValueError, match=r"wants the fields \['n'\], not \['m'\]"):
        Template("{n}", {"n": 1}).render(m=2)


class Echo(LanguageEnvironment):
    task = Template("Say {n}", {"n": 10})
    feedback = ("right", Template("no: {n}!", {"n": "longest"}))
    response = Template("<{n}>", {"n": 10})


def test_a_language_environment_has_the_sizes_of_its_templates():
    env = Echo(thought_bytes=5)
    assert (env.prompt_bytes, env.feedback_bytes, env.response_bytes) == (6, 12, 9)
    assert (env.observation_space.capacity, env.action_space.capacity) == (12, 9)
    assert to_str(env.ask(n=3)) == "Say 3" and to_str(env.say(n=10)) == "<10>"
    assert [to_str(env.answer(i, n=jnp.int32(4))) for i in (0, 1)] == ["right", "no: 4!"]
    shapes = [jax.eval_shape(lambda f=f: f(n=1)).bytes.shape for f in (env.ask, env.say)]
    assert shapes == [(12,), (9,)]
