"""The options that algorithms for language agents share, in blocks by purpose."""

import math
from typing import ClassVar, Literal, Self

import jax
import jax.numpy as jnp

from jaxrl import config
from jaxrl.config import pytree_dataclass


@pytree_dataclass
class PlayConfig:
    """How episodes are played."""

    total_episodes: config.Count = 100_000  # played while learning, the warm start not counted
    num_lanes: int = 256  # episodes played side by side
    refill_at: float = 0.5  # share of finished responses at which the environments answer
    temperature: float = 1.0  # of the policy, where it plays and where it learns
    response_tokens: int = 0  # a response's length limit, end of turn included; 0: what fits
    prompt_tokens: int = 0  # the longest first observation; 0: as many as it has bytes
    feedback_tokens: int = 0  # the longest later one; 0: as many as it has bytes
    context: int = 0  # tokens of a conversation; 0: what the longest episode needs
    unread: Literal["stop", "mask"] = "stop"  # if an observation does not fit; mask: not learned

    def _check_play(self) -> None:
        for name in ("total_episodes", "num_lanes", "temperature"):
            config.check_positive(name, getattr(self, name), 1)
        for name in ("response_tokens", "prompt_tokens", "feedback_tokens", "context"):
            config.check_range(name, getattr(self, name), 0, 2**31 - 1, 0)
        config.check_range("refill_at", self.refill_at, 0.0, 1.0, 0.5)


@pytree_dataclass
class OptimizerConfig:
    """How a gradient is computed and followed."""

    optimizer: Literal["adam", "muon"] = "adam"  # muon: of the layers' matrices, Adam of the rest
    learning_rate: float = 1e-3  # at the start
    lr_schedule: Literal["constant", "linear"] = "constant"  # linear: to 0 at the end
    max_grad_norm: float = 1.0  # gradients are clipped to this norm, policy and critic apart
    weight_decay: float | None = None  # decoupled (AdamW); of matrices, with muon of the layers'
    entropy_coef: float = 0.0  # bonus for the entropy of every token, at the start
    entropy_schedule: Literal["constant", "linear"] = "constant"  # linear: to 0 at the end
    micro_batch: int = 8  # episodes whose gradient is computed at once, then added up
    chunk: int = 0  # tokens whose logits exist at the same time; 0: as many as 128 MiB hold
    remat: bool = False  # compute layers again in the backward pass, to save memory

    @property
    def critic_rate(self) -> float:
        """The learning rate of a critic."""
        return self.learning_rate

    def _check_optimizer(self) -> None:
        for name in ("learning_rate", "max_grad_norm", "micro_batch"):
            config.check_positive(name, getattr(self, name), 1)
        config.check_range("chunk", self.chunk, 0, 2**31 - 1, 0)
        config.check_range("weight_decay", self.weight_decay, 0.0, 1e6, 0.1)
        config.check_range("entropy_coef", self.entropy_coef, -1.0, 1.0, 0.0)


@pytree_dataclass
class WarmStartConfig:
    """Scripted play that is imitated before, and while, an agent learns from its own."""

    sft_steps: int = 0  # supervised steps before, on scripted play
    sft_episodes: int = 256  # scripted episodes in each of these
    sft_on: Literal["actions", "all"] = "all"  # learn the player's tokens, or the answers too
    sft_moves: float = 1.0  # with "all": weight of the player's tokens, the answers' being 1
    sft_player: Literal["random", "expert"] = "random"  # who plays them
    sft_learning_rate: float = 3e-3  # for these steps
    sft_coef: float | None = None  # weight of scripted play in the loss after them, fading to 0

    def _check_warm_start(self) -> None:
        for name in ("sft_learning_rate", "sft_episodes", "sft_coef"):
            config.check_positive(name, getattr(self, name), 1)
        config.check_range("sft_steps", self.sft_steps, 0, 2**30, 0)
        config.check_range("sft_moves", self.sft_moves, 0.0, 1e6, 1.0)


@pytree_dataclass
class AgentConfig(WarmStartConfig, OptimizerConfig, PlayConfig):
    """Options of every algorithm for language agents."""

    has_critic: ClassVar[bool] = False  # values are learned beside the policy
    own_critic: ClassVar[bool] = False  # by layers of its own, at first those of the reward model
    group_size: ClassVar[int] = 1

    def __post_init__(self):
        self._check_play()
        self._check_optimizer()
        self._check_warm_start()
        config.check_divides("micro_batch", self.micro_batch, "sft_episodes", self.sft_episodes)

    @property
    def episodes(self) -> int:
        """Of one iteration, on all devices: of imitating."""
        return self.sft_episodes

    @property
    def keeps_reference(self) -> bool:
        """The model at the start is needed later on."""
        return False

    @property
    def num_iterations(self) -> int:
        """Warm start and learning together."""
        return self.sft_steps + -(-self.total_episodes // self.episodes)

    @property
    def num_blocks(self) -> int:
        """Equal parts that an iteration falls into; every device takes as many as any other."""
        return math.gcd(self.num_lanes, self.sft_episodes // self.micro_batch)

    def at_iteration(self, iteration: jax.Array) -> Self:
        """The numbers of an iteration, counted from 0, in the same form.

        The learning rate is `sft_learning_rate` while the warm start lasts; `sft_coef` falls to 0
        at the end, and what has a linear schedule too.
        """
        done = jnp.maximum(iteration - self.sft_steps, 0).astype(jnp.float32)
        left = 1.0 - done / (self.num_iterations - self.sft_steps)
        fading = {"linear": left, "constant": jnp.ones((), jnp.float32)}
        rate = self.learning_rate * fading[self.lr_schedule]
        if self.sft_steps:
            rate = jnp.where(iteration < self.sft_steps, self.sft_learning_rate, rate)
        return config.with_values(
            self,
            learning_rate=rate,
            entropy_coef=self.entropy_coef * fading[self.entropy_schedule],
            sft_coef=None if self.sft_coef is None else self.sft_coef * left,
        )


@pytree_dataclass
class GroupConfig(AgentConfig):
    """Options of the algorithms that learn from episodes of their own."""

    num_prompts: int = 64  # different episode starts in an iteration, P
    group_size: int = 1  # episodes from each of the starts, G
    overlong: Literal["keep", "mask", "penalise"] = "keep"  # responses the length limit cut

    num_epochs: ClassVar[int] = 1
    num_minibatches: ClassVar[int] = 1
    reference_plays: ClassVar[bool] = False  # not what learns, which is no policy any more

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_prompts", "group_size", "num_epochs", "num_minibatches"):
            config.check_positive(name, getattr(self, name), 1)
        what, few = "num_prompts*group_size", f"num_prompts={type(self).num_prompts}"
        config.check_iterations("total_episodes", self.total_episodes, what, self.episodes, few)
        config.check_divides(
            "num_minibatches", self.num_minibatches, "num_prompts", self.num_prompts
        )
        config.check_divides(
            "micro_batch", self.micro_batch, "episodes in a minibatch", self.minibatch
        )
        if self.sft_coef is not None:
            pieces = self.num_minibatches * self.micro_batch
            config.check_divides(
                "num_minibatches * micro_batch", pieces, "sft_episodes", self.sft_episodes
            )

    @property
    def episodes(self) -> int:
        return self.num_prompts * self.group_size

    @property
    def learned_of_group(self) -> int:
        """Episodes of a group that are learned from."""
        return self.group_size

    @property
    def prompt_shared_by(self) -> int:
        """Rows that lie side by side in a micro-batch and begin with the same prompt."""
        return math.gcd(self.learned_of_group, self.micro_batch)

    @property
    def minibatch(self) -> int:
        """Episodes that an optimizer step learns from."""
        return self.num_prompts * self.learned_of_group // self.num_minibatches

    @property
    def num_steps(self) -> int:
        """Optimizer steps in an iteration; with 1 it is on-policy."""
        return self.num_epochs * self.num_minibatches

    @property
    def num_blocks(self) -> int:
        prompts = self.num_prompts // self.num_minibatches
        blocks = math.gcd(super().num_blocks, prompts, self.minibatch // self.micro_batch)
        if self.sft_coef is not None:  # each minibatch rehearses its share of the scripted play
            share = self.sft_episodes // self.num_minibatches
            blocks = math.gcd(blocks, share // self.micro_batch)
        return blocks


@pytree_dataclass
class MinibatchConfig(GroupConfig):
    """Options of the algorithms that learn by minibatches, the ratio of policies clipped."""

    num_epochs: int = 1  # passes over an iteration's episodes
    num_minibatches: int = 1  # optimizer steps per pass
    clip_low: float = 0.2  # the ratio is clipped to 1 - clip_low ..
    clip_high: float = 0.28  # .. 1 + clip_high

    def __post_init__(self):
        super().__post_init__()
        for name in ("clip_low", "clip_high"):
            config.check_positive(name, getattr(self, name), 0.2)
