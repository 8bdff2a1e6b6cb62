"""Steps and tokens per second on one accelerator: `python benchmarks/gpu.py WHAT --out FILE`.

`arrays`: iterations of PPO, PQN, DQN and SAC in their trainers' own programs, over environments and
seeds. `decode`: greedy tokens of a model with random weights in bfloat16, beside the time in which
the chip's memory can be read (`--bandwidth`, bytes a second) and, where torch sees the chip, beside
transformers' `generate`. Compile time is told apart; each figure is the median of REPEATS runs.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.decoding import greedy
from benchmarks.record import machine, versions
from jaxrl.lm.model import weights
from jaxrl.lm.model.config import ModelConfig, preset
from jaxrl.lm.model.transformer import Transformer, unstack
from jaxrl.program import members
from jaxrl.train import table
from jaxrl.train.devices import Distributed, choose, join
from jaxrl.train.loop import program_of

REPEATS = 3
MIXED = {"cartpole": "CartPole-v1", "breakout": "Breakout-MinAtar", "pendulum": "Pendulum-v1"}
ARRAYS: list[tuple[str, str, str, int, dict[str, Any]]] = [  # trainer, env, preset, seeds, options
    ("ppo", "cartpole", "default", 1, {}),
    ("ppo", "cartpole", "default", 32, {}),
    ("ppo", "cartpole", "default", 512, {}),
    ("ppo", "cartpole", "default", 1, {"num_envs": 2048}),
    ("ppo", "cartpole", "default", 1, {"num_envs": 65536}),
    ("ppo", "breakout", "minatar", 1, {"num_envs": 64}),
    ("ppo", "breakout", "minatar", 1, {"num_envs": 4096}),
    ("pqn", "breakout", "minatar", 1, {}),
    ("pqn", "breakout", "minatar", 5, {}),
    ("dqn", "cartpole", "default", 1, {}),
    ("dqn", "cartpole", "default", 64, {}),
    ("sac", "pendulum", "default", 1, {}),
    ("sac", "pendulum", "default", 64, {}),
]


def medians(run: Callable[[], Any]) -> list[float]:
    """Seconds of each repeat after one that sets up."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        jax.block_until_ready(run())
        seconds.append(perf_counter() - began)
    return seconds


def learner(name: str, env: str, start: str, seeds: int, options: dict[str, Any]) -> dict[str, Any]:
    """Environment steps a second, of all seeds, in the program that the trainer runs."""
    trainer = table.trainer(name)
    cfg = replace(trainer.presets[start], **options)
    cfg = replace(cfg, total_steps=2_000_000_000)
    task = trainer.setup(trainer.options(env=MIXED[env], num_seeds=seeds, algo=cfg))
    mesh = choose(1, seeds, task.num_blocks, task.minibatch_rows)
    program = program_of(task, mesh)
    everyone = members(range(seeds), task.cfg, task.env)
    began = perf_counter()
    init, run = program.compile(everyone)
    compile_s = perf_counter() - began
    placed = program.place(everyone)
    state = init(placed)
    iterations = max(1, min(200, 4_000_000 // (task.steps_per_iteration * seeds)))

    def some() -> Any:
        nonlocal state
        state, log = run(state, placed, program.scalar(iterations))
        return log

    seconds = medians(some)
    steps = iterations * task.steps_per_iteration * seeds
    return {
        "benchmark": "arrays",
        "trainer": name,
        "env": MIXED[env],
        "preset": start,
        "seeds": seeds,
        "num_envs": cfg.num_envs,
        "iterations": iterations,
        "compile_s": compile_s,
        "seconds": seconds,
        "steps_per_s": steps / statistics.median(seconds),
    }


PROMPT = 32


def tokens(name: str, batch: int, new: int, bandwidth: float, peer: bool) -> dict[str, Any]:
    """Tokens a second, and those that reading weights and keys once a step would allow."""
    cfg = replace(preset(name, 50_000), param_dtype="bfloat16", dtype="bfloat16")
    stacked = jax.jit(lambda: Transformer(cfg, nnx.Rngs(0)))()
    model = jax.jit(unstack)(stacked)
    ids = np.random.default_rng(0).integers(100, 40_000, (batch, PROMPT)).astype(np.int32)
    began = perf_counter()
    program = jax.jit(greedy(cfg, batch, PROMPT, new)).lower(model, jnp.asarray(ids)).compile()
    compile_s = perf_counter() - began
    seconds = medians(lambda: program(model, jnp.asarray(ids)))
    rate = batch * new / statistics.median(seconds)
    kept = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim * 2  # bytes of a token's keys
    a_step = cfg.num_parameters * 2 + batch * (PROMPT + new / 2) * kept
    record = {
        "benchmark": "decode",
        "model": name,
        "batch": batch,
        "new_tokens": new,
        "compile_s": compile_s,
        "seconds": seconds,
        "tokens_per_s": rate,
        "roofline_tokens_per_s": batch * bandwidth / a_step,
        "of_roofline": rate * a_step / bandwidth / batch,
    }
    return record | (generate(cfg, stacked, ids, new) if peer else {})


def generate(cfg: ModelConfig, model: Transformer, ids: np.ndarray, new: int) -> dict[str, Any]:
    """transformers' tokens a second with the same weights on the same chip."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        weights.save(folder, cfg, model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    theirs = theirs.eval().to("cuda")
    theirs.generation_config.eos_token_id = None
    prompt = torch.as_tensor(ids).long().to("cuda")
    seconds = []
    for _ in range(2):
        began = perf_counter()
        theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=new,
            min_new_tokens=new,
            pad_token_id=0,
        )
        torch.cuda.synchronize()
        seconds.append(perf_counter() - began)
    rate = len(ids) * new / seconds[-1]
    return {
        "transformers_seconds": seconds,
        "transformers_tokens_per_s": rate,
        "peer": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("arrays", "decode"))
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--only", nargs="*", type=int, help="of the rows, these alone")
    parser.add_argument("--model", default="qwen2.5-0.5b")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--tokens", type=int, default=480)
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="an H100 SXM's")
    parser.add_argument("--peer", action="store_true", help="transformers too, at the first batch")
    args = parser.parse_args()
    join(Distributed())
    where = {
        "machine": machine(f"1 x {jax.devices()[0].device_kind}"),
        "versions": versions("jax", "jaxlib", "flax"),
    }

    def keep(record: dict[str, Any]) -> None:
        with args.out.open("a") as out:
            out.write(json.dumps(record | where) + "\n")
        print(json.dumps(record), flush=True)

    if args.what == "arrays":
        for i, row in enumerate(ARRAYS):
            if args.only is None or i in args.only:
                keep(learner(*row))
        return
    for i, batch in enumerate(args.batch):
        keep(tokens(args.model, batch, args.tokens, args.bandwidth, args.peer and i == 0))


if __name__ == "__main__":
    main()
