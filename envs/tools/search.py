"""A search tool over facts drawn for each episode: questions of several hops."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep, check_numbers, static
from jaxrl.envs.tools.office_draw import rows_of
from jaxrl.envs.tools.office_words import FIRST
from jaxrl.envs.tools.tables import NOTHING, lower
from jaxrl.envs.tools.world import Episode, ToolWorld, Verdict
from jaxrl.text import Template, Text, concat, equal, select, where
from jaxrl.text.answers import Reading, normal, stated
from jaxrl.text.calls import Calls
from jaxrl.text.patterns import boxed
from jaxrl.text.tools import Parameter, Tool

SIZE = 10  # bytes of a word
PEOPLE = 8  # of an episode
CITIES = ["Rome", "Oslo", "Lima", "Cairo", "Paris", "Delhi", "Tokyo", "Quito", "Accra", "Perth"]
LINKS = ("boss", "friend")
FACT = "{}: boss {}, friend {}, city {}"
TOOLS = (Tool("search", "What is known of a person.", (Parameter("query", size=SIZE),)),)


class Facts(flax.struct.PyTreeNode):
    name: Text  # [PEOPLE]
    city: Text  # [PEOPLE]
    link: jax.Array  # int32 [2, PEOPLE]: each person's boss and friend
    path: jax.Array  # int32 [hops - 1]: the links that lead from the first person to the last


class Search(ToolWorld):
    r"""`city of boss of Ann`: one search for each hop, then the answer, as `\boxed{Rome}`."""

    hops: int = static(2)
    turns: int = static(5)

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, hops=(1, 4))

    @property
    def toolbox(self) -> tuple[Tool, ...]:
        return TOOLS

    @property
    def result_bytes(self) -> int:
        return len(FACT) + 4 * SIZE

    @property
    def task(self) -> Template:
        words = "What is the {question}? Look it up with the tool, then reply with only the answer."
        widest = "city of " + "friend of " * (self.hops - 1) + "W" * SIZE
        return Template(
            words if self.in_words else r"{question}: \boxed{{X}}", {"question": widest}
        )

    @property
    def response(self) -> Template:
        widest = {"city": max(CITIES, key=len)}
        return Template("{city}" if self.in_words else r"\boxed{{{city}}}", widest)

    def reset(self, key: jax.Array) -> tuple[Episode, TimeStep]:
        world = self.draw(key)
        links = [select(link, [f"{link} of " for link in LINKS]) for link in world.path[::-1]]
        question = ["city of ", *links, _row(world.name, jnp.int32(0))]
        size = self.prompt_bytes
        return self.begin(world, self.ask(question=concat(question, size)))

    def draw(self, key: jax.Array) -> Facts:
        name_key, city_key, link_key, path_key = jax.random.split(key, 4)
        order = jax.random.permutation(name_key, len(FIRST.split()))[:PEOPLE]
        city = jax.random.randint(city_key, (PEOPLE,), 0, len(CITIES), jnp.int32)
        other = jax.random.randint(link_key, (len(LINKS), PEOPLE), 1, PEOPLE, jnp.int32)
        link = (jnp.arange(PEOPLE, dtype=jnp.int32) + other) % PEOPLE  # nobody's is themselves
        path = jax.random.randint(path_key, (self.hops - 1,), 0, len(LINKS), jnp.int32)
        names, cities = rows_of(FIRST.split(), SIZE), rows_of(CITIES, SIZE)
        return Facts(_row(names, order), _row(cities, city), link, path)

    def use(self, world: Facts, tool: jax.Array, given: Calls) -> tuple[Facts, Text]:
        del tool  # there is one
        query = lower(given.text.bytes[0, :SIZE])
        is_row = jnp.all(lower(world.name.bytes) == query, 1)
        who = jnp.argmax(is_row)
        parts = [(": boss ", world.link[0, who]), (", friend ", world.link[1, who])]
        linked = [x for label, other in parts for x in (label, _row(world.name, other))]
        fact = [_row(world.name, who), *linked, ", city ", _row(world.city, who)]
        return world, where(jnp.any(is_row), concat(fact, self.result_bytes), NOTHING)

    def finish(self, world: Facts, action: Text) -> Verdict:
        answer = _row(world.city, self.people(world)[-1])
        if self.in_words:
            said, marked, _ = stated(action)
            text = normal(said, SIZE)
            found = text.length > 0
            reading = Reading(text, found, found | marked)
        else:
            move = boxed("[A-Za-z]+", action, SIZE)
            reading = Reading(move.payload, move.found, move.found)
        text = reading.text.replace(bytes=lower(reading.text.bytes))
        return Verdict(equal(text, answer.replace(bytes=lower(answer.bytes))), 0.0, reading)

    def people(self, world: Facts) -> jax.Array:
        """int32 [hops]: whom to look up, in order."""
        found = [jnp.zeros((), jnp.int32)]
        for hop in range(self.hops - 1):
            found.append(world.link[world.path[hop], found[-1]])
        return jnp.stack(found)

    def expert(self, state: Episode, key: jax.Array) -> Text:
        """Each person on the way by a search, then the city of the last."""
        del key
        people = self.people(state.world)
        who = people[jnp.minimum(state.turn, self.hops - 1)]
        query = jax.tree.map(lambda x: x[None], _row(state.world.name, who))
        call = self.call(0, query, jnp.ones(1, jnp.bool_))
        answer = self.say(city=_row(state.world.city, people[-1]))
        return where(state.turn < self.hops, call, answer)

    def random_player(self, state: Episode, key: jax.Array) -> Text:
        """As the expert, of other facts."""
        draw_key, key = jax.random.split(key)
        return self.expert(state.replace(world=self.draw(draw_key)), key)


def _row(rows: Text, index: jax.Array) -> Text:
    return jax.tree.map(lambda x: x[index], rows)
