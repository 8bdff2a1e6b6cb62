"""A language agent as small as can be, for tests: a game of two turns, one layer, its episodes."""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrl.env import static, timestep
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.params import Params, zero_critic
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.episodes import Episodes, empty
from jaxrl.lm.play.limits import limits
from jaxrl.mesh import make_mesh
from jaxrl.metrics import quotient
from jaxrl.program import make_program, members
from jaxrl.text import ByteTokenizer, Text, literal, make_chat

CHAT = make_chat(ByteTokenizer())
MODEL = replace(
    preset("nano", 260), width=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, hidden=8
)


class Said(flax.struct.PyTreeNode):
    turn: jax.Array  # int32 []


class Parrot(LanguageEnvironment):
    """Pays `prize` for each response that begins with an `a`, in two turns."""

    prize: float = 1.0
    turns: int = static(2)
    says: str = static("say a")
    talk: str = static("a")  # what the players say
    truncates: bool = static(False)  # the clock ends it, not the rules
    both: bool = static(False)  # the peer's flags: both, at the end
    response_bytes: int = static(3)
    max_turns = property(lambda self: self.turns)
    prompt_bytes = property(lambda self: len(self.says.encode()))
    feedback_bytes = property(lambda self: 2)

    def reset(self, key):
        del key
        zero = jnp.zeros((), jnp.float32)
        text = literal(self.says, self.observation_space.capacity)
        return Said(jnp.zeros((), jnp.int32)), timestep(text, metrics=self.metrics(zero))

    def metrics(self, hit):
        return {"success": hit, "length": 2 * hit}

    def step(self, state, action, key):
        del key
        hit = (action.bytes[0] == ord("a")) & (action.length > 0)
        hit = hit.astype(jnp.float32)
        turn = state.turn + 1
        last = turn >= self.turns
        return Said(turn), timestep(
            literal("ok", self.observation_space.capacity),
            hit * jnp.asarray(self.prize, jnp.float32),
            last & (not self.truncates),
            last & (self.truncates or self.both),
            self.metrics(hit),
        )

    def expert(self, state, key) -> Text:
        del state, key
        return literal(self.talk, self.response_bytes)

    def random_player(self, state, key) -> Text:
        return self.expert(state, key)


def agent(env: LanguageEnvironment | None = None, **options: Any) -> Agent:
    """In an environment, by default Parrot; `options` of Agent, and `lora_rank`."""
    env = Parrot() if env is None else env
    sizes = limits(env, CHAT)
    rank = options.pop("lora_rank", 0)
    model = replace(MODEL, context=sizes.context, lora_rank=rank)
    return Agent(env, CHAT, sizes, model, num_shown=2, **options)


SMALL: dict[str, Any] = {
    "num_prompts": 4,
    "num_lanes": 4,
    "micro_batch": 2,
    "sft_episodes": 4,
    "total_episodes": 16,
}


def params(has_critic: bool = False, seed: int = 0) -> Params:
    policy = Transformer(MODEL, nnx.Rngs(params=jax.random.key(seed)))
    return Params(policy, zero_critic(MODEL.width) if has_critic else None)


def episodes(reward: np.ndarray, seed: int = 0, **fields: Any) -> Episodes:
    """A record of random tokens with rewards [N, U]: prompt, then in turn 3 tokens of each side."""
    count, turns = reward.shape
    context = 2 + 6 * turns
    place = np.arange(context)
    block, inside = np.divmod(place - 2, 6)
    action = (place >= 2) & (inside < 3)
    rng = np.random.default_rng(seed)
    record = empty(count, context, turns, ["success"], first=2).replace(
        token=jnp.asarray(rng.integers(0, 256, (count, context)), jnp.int32),
        action=jnp.asarray(np.broadcast_to(action, (count, context))),
        turn=jnp.asarray(np.broadcast_to(np.maximum(block + (inside >= 3), 0), (count, context))),
        log_prob=jnp.asarray(
            np.where(action, -np.log(260), 0.0) * np.ones((count, 1)), jnp.float32
        ),
        length=jnp.full(count, context - 3, jnp.int32),
        reward=jnp.asarray(reward, jnp.float32),
        played=jnp.ones((count, turns), bool),
        terminated=jnp.ones(count, bool),
    )
    turn = record.turn.astype(jnp.int32)
    return record.replace(turn=turn, **fields)


def functions(algorithm: Any, mine: Agent) -> tuple[Any, Any]:
    """`init` and `update` of a member, as a task has them."""

    def init(key, member, *, axis):
        return algorithm.init(key, cfg=member.cfg, agent=replace(mine, env=member.env), axis=axis)

    def update(state, key, member, *, axis):
        return algorithm.update(
            state, key, cfg=member.cfg, agent=replace(mine, env=member.env), axis=axis
        )

    return init, update


def program(algorithm: Any, cfg: Any, mine: Agent, devices: int = 1, max_count: int = 4) -> Any:
    """(program, members) of one seed, as the host loop makes it."""
    made = make_program(
        *functions(algorithm, mine),
        partial(algorithm.layout, cfg, mine),
        make_mesh(1, jax.devices()[:devices]),
        max_count=max_count,
        one_by_one=True,
    )
    return made, members([0], cfg, mine.env)


def means(log: Any, iteration: int) -> dict[str, float]:
    """An iteration's metrics as the host logs them: the unknown ones left out."""
    rows = jax.tree.map(lambda x: np.asarray(x)[iteration, 0], log)
    return {name: float(quotient(x)) for name, x in rows.items() if x.denominator > 0}
