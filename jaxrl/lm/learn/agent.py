"""A language agent's fixed parts, and the state of its learning."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxrl import mesh
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.optimizer import optimizer
from jaxrl.lm.learn.options import AgentConfig, PlayConfig
from jaxrl.lm.model import lora
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.params import Params, zero_critic
from jaxrl.lm.model.shards import Layout, part_of, state_specs
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.episodes import Episodes, empty, metric_names
from jaxrl.lm.play.limits import Limits
from jaxrl.lm.play.rounds import Prompts, Work, play
from jaxrl.policy import named_leaves


class State(flax.struct.PyTreeNode):
    """All that must survive a crash."""

    params: Params
    opt_state: Any
    reference: Params | None  # those after the warm start, where an algorithm stays near to them
    shown: Episodes  # a few of the last iteration's episodes, for the transcripts
    iteration: jax.Array  # int32 []
    judge: Params | None = None  # a reward model, which stays as it is


SPLIT_FIELDS = ("params", "opt_state", "reference", "judge")


@dataclass(frozen=True)
class Agent:
    """What an algorithm needs to know besides its options."""

    env: LanguageEnvironment
    chat: Any  # of jaxrl.text: the conversation's form, and the tokenizer
    limits: Limits
    model_config: ModelConfig
    given: bool = False  # weights come from a file: all but adapters are 0 until `load_weights`
    split: bool = False  # parameters and optimiser state over the devices of a member
    examples: Episodes | None = None  # conversations to imitate instead of scripted play
    num_shown: int = 4  # episodes kept of every iteration, for the transcripts
    host: Any = None  # a user's Python that it meets (jaxrl.lm.host); None: there is none
    judge: ModelConfig | None = None  # structure of the reward model that judges its episodes

    def make_params(self, key: jax.Array, has_critic: bool, own_critic: bool = False) -> Params:
        """A policy with random weights, or those to be given; a critic that is 0 everywhere.

        One of its own layers has those of the reward model, which `load_judge` gives it.
        """
        policy = Transformer(self.model_config, nnx.Rngs(params=key))
        if self.given:
            policy = lora.map_named(
                lambda name, x: x if lora.ADAPTER in name else jnp.zeros_like(x), policy
            )
        head = zero_critic(self.model_config.width) if has_critic else None
        return Params(policy, self.make_judge() if own_critic else head)

    def make_judge(self) -> Params:
        """A reward model that is 0 everywhere, until `load_judge`."""
        assert self.judge is not None, "there is no reward model"
        model = Transformer(self.judge, nnx.Rngs(0))
        return Params(jax.tree.map(jnp.zeros_like, model), zero_critic(self.judge.width))

    def layout(self, cfg: AgentConfig, axis: str | None) -> Layout:
        """How the parameters lie on the devices of a mesh axis."""
        how = {"has_critic": cfg.has_critic, "own_critic": cfg.own_critic}
        make = partial(self.make_params, **how)
        return Layout(jax.eval_shape(make, jax.random.key(0)) if self.split else None, axis)

    def whole_judge(self, judge: Params, axis: str | None) -> Params:
        """A state's reward model, on every device."""
        whole = jax.eval_shape(self.make_judge) if self.split else None
        return Layout(whole, axis).gather(judge)

    def play(
        self,
        policy: Transformer,
        key: jax.Array,
        prompt_index: jax.Array,
        cfg: PlayConfig,
        group_size: int = 1,
        axis: str | None = None,
        in_rows: bool = False,
    ) -> tuple[Episodes, Work]:
        """Episodes of a whole policy from the prompts with these global indices."""
        return self.play_from(policy, key, prompt_index, cfg, group_size, axis, in_rows)[:2]

    def play_from(
        self,
        policy: Transformer,
        key: jax.Array,
        prompt_index: jax.Array,
        cfg: PlayConfig,
        group_size: int = 1,
        axis: str | None = None,
        in_rows: bool = False,
    ) -> tuple[Episodes, Work, Prompts]:
        """The same, and how the episodes began."""
        return play(
            policy,
            self.env,
            self.chat,
            self.limits,
            key,
            prompt_index,
            group_size=group_size,
            num_lanes=cfg.num_lanes // mesh.axis_size(axis),
            temperature=cfg.temperature,
            refill_at=cfg.refill_at,
            in_rows=in_rows,
        )


def init(key: jax.Array, *, cfg: AgentConfig, agent: Agent, axis: str | None = None) -> State:
    """A fresh State with random weights; `load_weights` gives it others."""
    params = agent.make_params(key, cfg.has_critic, cfg.own_critic)
    judge = None if agent.judge is None else agent.make_judge()
    if agent.split and axis is not None:
        params, judge = part_of((params, judge), axis)
    sizes = agent.limits
    like = params.replace(critic=None)
    return State(
        params=params,
        opt_state=optimizer(cfg).init(params.trained()),  # pyright: ignore
        reference=jax.tree.map(jnp.copy, like) if cfg.keeps_reference else None,
        shown=empty(
            agent.num_shown,
            sizes.context,
            sizes.max_turns,
            metric_names(agent.env),
            sizes.first,
        ),
        iteration=jnp.zeros((), jnp.int32),
        judge=judge,
    )


def layout(cfg: AgentConfig, agent: Agent, devices: int) -> Any:
    """How a State is laid out on a mesh whose members have this many devices each.

    All of it on every device, but with `split` each of the devices of a member keeps one part of
    the parameters, the reference and the optimiser's state.
    """
    if not agent.split:
        return P(mesh.SEED)
    whole = jax.eval_shape(partial(init, cfg=cfg, agent=agent), jax.random.key(0))
    parts: dict[str, Any] = {name: P(mesh.SEED) for name in State.__dataclass_fields__}
    for name in SPLIT_FIELDS:
        parts[name] = state_specs(getattr(whole, name), devices)
    return State(**parts)


def load_weights(state: State, weights: dict[str, Any]) -> State:
    """A fresh State [K, ...] whose policies, and what they stay near to, have these weights.

    They are given by name (`policy.named_leaves`) and taken out of the dictionary, and what they
    replace is deleted, so that no more than one of them is in memory twice. Adapters keep their
    own. Every device is given its own part only, and nothing is compiled.
    """
    parts = [p for p in (state.params, state.reference) if p is not None]
    found = [named_leaves(part.policy) for part in parts]
    missing = {name for name in found[0] if lora.ADAPTER not in name} - weights.keys()
    assert not missing, f"the weights have been taken before, or lack {min(missing)}"
    for name in list(weights):
        value = weights.pop(name)
        for leaves in found:
            leaves[name] = _put(leaves[name], value)
    filled = [
        part.replace(
            policy=lora.map_named(lambda name, _, leaves=leaves: leaves[name], part.policy)
        )
        for part, leaves in zip(parts, found, strict=True)
    ]
    return state.replace(params=filled[0], reference=filled[1] if len(filled) > 1 else None)


def load_judge(state: State, judge: Params) -> State:
    """A fresh State [K, ...] whose reward models are this one, and a critic of its own layers."""
    assert state.judge is not None
    critic = state.params.critic
    if isinstance(critic, Params):
        state = state.replace(params=state.params.replace(critic=jax.tree.map(_put, critic, judge)))
    return state.replace(judge=jax.tree.map(_put, state.judge, judge))


def _put(x: jax.Array, value: Any) -> jax.Array:
    """`value` [...] in the place of x [K, ...], which is deleted."""

    def part(index: Any) -> np.ndarray:  # a slice for each axis
        one = np.asarray(value[index[1:]]).astype(x.dtype)
        count = len(range(*index[0].indices(x.shape[0])))
        return np.broadcast_to(one, (count, *one.shape))

    shape, sharding = x.shape, x.sharding
    x.delete()
    return jax.make_array_from_callback(shape, sharding, part)
