"""A language agent's fixed parts, and the options that every algorithm for one has."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxrl import config, mesh
from jaxrl.language import LanguageEnvironment
from jaxrl.lm import lora
from jaxrl.lm.config import ModelConfig
from jaxrl.lm.episodes import Episodes, empty
from jaxrl.lm.model import Transformer
from jaxrl.lm.play import Limits
from jaxrl.lm.shards import Layout, part_of, state_specs
from jaxrl.policy import named_leaves

MUON_RMS = 0.6  # about three times Adam's, as measured


@dataclass(frozen=True)
class SharedConfig:
    """Options of every algorithm for language agents."""

    total_episodes: int = 100_000  # played while learning, the warm start not counted
    num_lanes: int = 256  # episodes played side by side
    refill_at: float = 0.5  # share of finished responses at which the environments answer
    temperature: float = 1.0  # of the policy, where it plays and where it learns
    response_tokens: int = 0  # a response's length limit, end of turn included; 0: what fits
    prompt_tokens: int = 0  # the longest first observation; 0: as many as it has bytes
    answer_tokens: int = 0  # the longest later one; 0: as many as it has bytes
    context: int = 0  # tokens of a conversation; 0: what the longest episode needs
    optimizer: Literal["adam", "muon"] = "adam"  # muon: of the layers' matrices, Adam of the rest
    learning_rate: float = 1e-3  # at the start
    lr_schedule: Literal["constant", "linear"] = "constant"  # linear: to 0 at the end
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    weight_decay: float = 0.0  # decoupled (AdamW); of matrices, with muon of the layers' alone
    entropy_coef: float = 0.0  # bonus for the entropy of every token, at the start
    entropy_schedule: Literal["constant", "linear"] = "constant"  # linear: to 0 at the end
    micro_batch: int = 8  # episodes whose gradient is computed at once, then added up
    chunk: int = 4096  # tokens whose logits exist at the same time
    remat: bool = False  # compute layers again in the backward pass, to save memory
    sft_steps: int = 0  # supervised steps before, on scripted play
    sft_episodes: int = 256  # scripted episodes in each of these
    sft_on: Literal["actions", "all"] = "all"  # learn the player's tokens, or the answers too
    sft_moves: float = 1.0  # with "all": weight of the player's tokens, the answers' being 1
    sft_player: Literal["random", "expert"] = "random"  # who plays them
    sft_learning_rate: float = 3e-3  # for these steps
    sft_coef: float = 0.0  # weight of scripted play in the loss after them, fading to 0 at the end

    def __post_init__(self):
        for name in ("total_episodes", "num_lanes", "temperature", "learning_rate", "chunk"):
            config.check_positive(name, getattr(self, name), 1)
        for name in ("max_grad_norm", "sft_learning_rate", "sft_episodes", "micro_batch"):
            config.check_positive(name, getattr(self, name), 1)
        for name in ("response_tokens", "prompt_tokens", "answer_tokens", "context"):
            config.check_range(name, getattr(self, name), 0, float("inf"), 0)
        for name in ("sft_steps", "sft_coef", "sft_moves", "weight_decay"):
            config.check_range(name, getattr(self, name), 0, float("inf"), 0)
        config.check_range("refill_at", self.refill_at, 0.0, 1.0, 0.5)
        config.check_range("entropy_coef", self.entropy_coef, -1.0, 1.0, 0.0)
        config.check_divides("micro_batch", self.micro_batch, "sft_episodes", self.sft_episodes)

    @property
    def episodes(self) -> int:
        """Played in one iteration, on all devices."""
        raise NotImplementedError

    @property
    def num_iterations(self) -> int:
        """Warm start and learning together."""
        return self.sft_steps + -(-self.total_episodes // self.episodes)

    @property
    def minibatch(self) -> int:
        """Episodes that an optimizer step learns from."""
        return self.episodes

    @property
    def num_groups(self) -> int:
        """Equal parts that an iteration falls into; every device takes as many as any other."""
        pieces = (self.minibatch // self.micro_batch, self.sft_episodes // self.micro_batch)
        return math.gcd(self.num_lanes, *pieces)


@dataclass(frozen=True)
class MinibatchConfig(SharedConfig):
    """Options of the algorithms that climb by minibatches, the ratio of policies clipped."""

    num_prompts: int = 64  # different episode starts in an iteration, P
    num_epochs: int = 1  # passes over an iteration's episodes
    num_minibatches: int = 1  # optimizer steps per pass
    clip_low: float = 0.2  # the ratio is clipped to 1 - clip_low ..
    clip_high: float = 0.28  # .. 1 + clip_high

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_prompts", "num_epochs", "clip_low", "clip_high"):
            config.check_positive(name, getattr(self, name), 1)
        config.check_divides(
            "num_minibatches", self.num_minibatches, "num_prompts", self.num_prompts
        )
        config.check_divides(
            "micro_batch", self.micro_batch, "episodes in a minibatch", self.minibatch
        )
        if self.sft_coef:
            pieces = self.num_minibatches * self.micro_batch
            config.check_divides(
                "num_minibatches * micro_batch", pieces, "sft_episodes", self.sft_episodes
            )

    @property
    def minibatch(self) -> int:
        return self.episodes // self.num_minibatches

    @property
    def num_steps(self) -> int:
        """Optimizer steps in an iteration; with 1 it is on-policy."""
        return self.num_epochs * self.num_minibatches

    @property
    def num_groups(self) -> int:
        groups = math.gcd(super().num_groups, self.num_prompts // self.num_minibatches)
        if self.sft_coef:  # each minibatch rehearses its share of the scripted play
            share = self.sft_episodes // self.num_minibatches
            groups = math.gcd(groups, share // self.micro_batch)
        return groups


class State(flax.struct.PyTreeNode):
    """All that must survive a crash."""

    model: Transformer
    opt_state: Any
    reference: Transformer | None  # the model after the warm start, where KL is used
    shown: Episodes  # a few of the last iteration's episodes, for the transcripts
    iteration: jax.Array  # int32 []


class Weights(flax.struct.PyTreeNode):
    """What an iteration adds to its objective; float32 []."""

    entropy: jax.Array
    scripted: jax.Array  # imitation of scripted play


SPLIT_FIELDS = ("model", "opt_state", "reference")


@dataclass(frozen=True)
class Agent:
    """What an algorithm needs to know besides its options."""

    env: LanguageEnvironment
    chat: Any  # of jaxrl.text: the conversation's form, and the tokenizer
    limits: Limits
    model_config: ModelConfig
    split: bool = False  # parameters and optimiser state over the devices of a seed
    examples: Episodes | None = None  # conversations to imitate instead of scripted play
    num_shown: int = 4  # episodes kept of every iteration, for the transcripts

    def make_model(self, key: jax.Array) -> Transformer:
        """A model with random weights."""
        return Transformer(self.model_config, nnx.Rngs(params=key))

    def layout(self, axis: str | None) -> Layout:
        """How the model lies on the devices of a mesh axis."""
        shapes = jax.eval_shape(self.make_model, jax.random.key(0)) if self.split else None
        return Layout(shapes, axis)

    def specs(self, state: type[State], start: Callable[[jax.Array], Any], devices: int) -> Any:
        """How a State is laid out on a mesh, seeds stacked in front.

        All of it on every device, but with `split` each of the `devices` of a seed keeps one part
        of the model, the reference and the optimiser's state. `start(key)` makes the whole State.
        """
        if not self.split:
            return P(mesh.SEED)
        whole = jax.eval_shape(start, jax.random.key(0))
        layout: dict[str, Any] = {name: P(mesh.SEED) for name in state.__dataclass_fields__}
        for name in SPLIT_FIELDS:
            layout[name] = state_specs(getattr(whole, name), devices)
        return state(**layout)

    def start(
        self,
        key: jax.Array,
        transform: optax.GradientTransformation,
        keep_reference: bool,
        axis: str | None,
    ) -> State:
        """A fresh State for an optimiser, with a copy of the model to stay near to if wanted."""
        model = self.make_model(key)
        if self.split and axis is not None:
            model = part_of(model, axis)
        return State(
            model=model,
            opt_state=transform.init(lora.trained(model)),
            reference=jax.tree.map(jnp.copy, model) if keep_reference else None,
            shown=empty(self.num_shown, self.limits.context, self.limits.max_turns),
            iteration=jnp.zeros((), jnp.int32),
        )


def pour(state: State, weights: Transformer) -> State:
    """A fresh State [K, ...] whose models, and what they stay near to, have these weights instead.

    Adapters keep their own. Every device is given its own part only, and nothing is compiled.
    """
    known = named_leaves(weights)

    def put(name: str, x: jax.Array) -> jax.Array:
        if name not in known:
            return x

        def part(index: Any) -> np.ndarray:  # a slice for each axis
            one = np.asarray(known[name][index[1:]]).astype(x.dtype)
            count = len(range(*index[0].indices(x.shape[0])))
            return np.broadcast_to(one, (count, *one.shape))

        return jax.make_array_from_callback(x.shape, x.sharding, part)

    reference = state.reference
    if reference is not None:
        reference = lora.map_named(put, reference)
    return state.replace(model=lora.map_named(put, state.model), reference=reference)


def optimizer(cfg: SharedConfig, steps_per_iteration: int = 1) -> optax.GradientTransformation:
    """AdamW or Muon; the warm start has a learning rate of its own. `descend` clips by norm before.

    Muon (arXiv:2502.16982) moves a matrix along its gradient made orthogonal, so far that its
    elements change by MUON_RMS learning rates (root mean square).
    """
    steps = (cfg.num_iterations - cfg.sft_steps) * steps_per_iteration
    rate = optax.constant_schedule(cfg.learning_rate)
    if cfg.lr_schedule == "linear":
        rate = optax.linear_schedule(cfg.learning_rate, 0.0, steps)
    if cfg.sft_steps:
        warm = optax.constant_schedule(cfg.sft_learning_rate)
        rate = optax.join_schedules([warm, rate], [cfg.sft_steps])
    if cfg.optimizer == "muon":
        return optax.contrib.muon(
            rate,
            adam_b2=0.99,
            adam_learning_rate=rate,
            weight_decay=cfg.weight_decay,
            consistent_rms=MUON_RMS,
            muon_weight_dimension_numbers=_stacked,
        )
    return optax.adamw(rate, b2=0.99, weight_decay=cfg.weight_decay, mask=_matrices)


def weights_at(cfg: SharedConfig, iteration: jax.Array) -> Weights:
    """Of an iteration, counted from 0: the rehearsal's falls from `sft_coef` to 0 at the end."""
    done = jnp.maximum(iteration - cfg.sft_steps, 0)
    left = 1.0 - done / (cfg.num_iterations - cfg.sft_steps)
    entropy = cfg.entropy_coef * (left if cfg.entropy_schedule == "linear" else 1.0)
    return Weights(jnp.asarray(entropy, jnp.float32), jnp.float32(cfg.sft_coef) * left)


def _stacked(params: Any) -> Any:
    """Where Muon finds matrices: in the layers' [L, inputs, outputs]; None elsewhere."""
    of_layers = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map(lambda x: of_layers if jnp.ndim(x) == 3 else None, params)


def _matrices(params: Any) -> Any:
    """True for what weight decay touches: not norms and biases."""
    return jax.tree.map(lambda x: jnp.ndim(x) > 1 and min(jnp.shape(x)[-2:]) > 1, params)
