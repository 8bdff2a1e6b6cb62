"""What a language agent needs in memory, by the option that it follows."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxrl.lm.learn.agent import Agent, init
from jaxrl.lm.learn.options import AgentConfig, GroupConfig
from jaxrl.lm.model.config import ModelConfig
from jaxrl.lm.model.log_prob import tokens_at_once
from jaxrl.lm.play.limits import Limits
from jaxrl.memory import Part, size_of

OF_A_TOKEN = 13  # bytes in the record: the token, who wrote it, its turn, its log-prob


def training_parts(cfg: AgentConfig, agent: Agent) -> list[Part]:
    """Of a run; lower bounds, as everything in `jaxrl.memory`."""
    model, context = agent.model_config, agent.limits.context
    state = jax.eval_shape(partial(init, cfg=cfg, agent=agent), jax.random.key(0))
    weights = size_of((state.params, state.opt_state, state.reference, state.judge))
    plays = isinstance(cfg, GroupConfig)
    episodes = cfg.episodes if plays else cfg.sft_episodes
    many = "num_prompts" if plays else "sft_episodes"
    read = agent.limits
    if agent.examples is not None and not plays:
        read = replace(read, context=agent.examples.token.shape[1])
    parts = [
        of_model(model, weights, agent.split),
        buffer(cfg, many, episodes * context * OF_A_TOKEN),
        buffer(cfg, "micro_batch", activations(model, cfg, read), split=False),
    ]
    if plays:
        lanes = min(cfg.num_lanes, episodes)
        parts.append(buffer(cfg, "num_lanes", cache(model, lanes, context)))
    return parts


def evaluation_parts(agent: Agent, lanes: int, episodes: int) -> list[Part]:
    """Of fresh episodes of one model after the other, on one device."""
    model, context = agent.model_config, agent.limits.context
    size = cache(model, min(lanes, episodes), context) + episodes * context * OF_A_TOKEN
    return [Part("eval_episodes", episodes, size, split=False, in_turn=True)]


def of_model(model: ModelConfig, size: int, split: bool) -> Part:
    """Parameters, optimiser state and reference of each member."""
    if model.lora_rank:
        return Part("lora_rank", model.lora_rank, size, split)
    return Part("model", model.width, size, split, example="nano")


def buffer(cfg: AgentConfig, option: str, size: int, split: bool = True) -> Part:
    """What serves one member after the other, as long as `context` says where it is given."""
    if cfg.context:
        return Part("context", cfg.context, size, split, in_turn=True, example="0")
    return Part(option, getattr(cfg, option), size, split, in_turn=True)


def cache(model: ModelConfig, lanes: int, context: int) -> int:
    """Bytes of the keys and values of so many lanes."""
    row = 2 * model.num_layers * model.num_kv_heads * model.head_dim
    return lanes * context * row * jnp.dtype(model.dtype).itemsize


def activations(model: ModelConfig, cfg: AgentConfig, sizes: Limits) -> int:
    """Bytes that the backward pass of a micro-batch keeps, and a chunk's logits.

    What plays reads the prompt of a group once, and has logits of what follows it alone.
    """
    rows, context, width = cfg.micro_batch, sizes.context, jnp.dtype(model.dtype).itemsize
    tokens, predicted, scores = rows * context, rows * context, rows * context**2
    if isinstance(cfg, GroupConfig) and not cfg.sft_steps and cfg.sft_coef is None:
        prompts, predicted = rows // cfg.prompt_shared_by, rows * (context - sizes.first)
        tokens = prompts * sizes.first + predicted
        scores = prompts * sizes.first**2 + predicted * context
    layers = 1 if cfg.remat else model.num_layers
    logits = min(cfg.chunk or tokens_at_once(model), predicted) * model.vocab_size * 4
    attention = layers * scores * model.num_heads * width
    return attention + model.num_layers * tokens * model.width * width + logits
