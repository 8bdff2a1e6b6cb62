"""A real model's speed and memory beside the peers: `python benchmarks/real_speed.py WHAT ...`.

`grpo` times iterations of GRPO on sums of one digit in words with LoRA of rank 16, in float32, in
turn with TRL's (`--peer-python`: a Python with the needs of benchmarks/peers/trl_grpo.py), with and
without its gradient checkpointing. `decode` times greedy tokens against `generate` of transformers
(`--peer-python`: one with torch and transformers). Each side is a process of its own.

    python benchmarks/real_models.py --out real
    python benchmarks/real_speed.py grpo --model real/smollm2 --peer-python peer/bin/python --out F
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def jaxrl_grpo(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every iteration after the first, as the trainer's own command runs them."""
    import jax

    from jaxrl.algos import grpo
    from jaxrl.program import members
    from jaxrl.train import loop, table
    from jaxrl.train.devices import choose, described, offer_cores, one_core_each

    offer_cores()
    trainer = table.trainer("grpo")
    episodes = args.prompts * args.samples
    cfg = grpo.Config(
        num_prompts=args.prompts,
        group_size=args.samples,
        num_lanes=episodes,
        micro_batch=args.micro_batch,
        response_tokens=args.tokens,
        total_episodes=episodes * 1000,
        learning_rate=5e-4,
    )
    fields = ("max_terms=2", "max_digits=1", "digits=1", "prompt=instruct")
    options = trainer.options(
        env="reasoning/chain_sum", env_args=fields, model=args.model, lora_rank=16, algo=cfg
    )
    task = trainer.setup(options)
    mesh = choose(args.devices, 1, task.num_blocks, task.minibatch_rows, task.weights)
    began = time.perf_counter()
    program = loop.program_of(task, mesh)
    everyone = members([0], task.cfg, task.env)
    init, run = program.compile(everyone, one_core_each(mesh, task.weights))
    loop.memory.give_back()
    compile_s = time.perf_counter() - began
    placed = program.place(everyone)
    state = task.start(init(placed))
    seconds, known = [], []
    for _ in range(args.iterations):
        began = time.perf_counter()
        state, metrics = run(state, placed, program.scalar(1))
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        means = {k: x.numerator[0, 0] / x.denominator[0, 0] for k, x in metrics.items()}
        known.append({k: float(means[k]) for k in ("uniform_groups", "response_tokens", "success")})
    return {
        "iteration_s": seconds[1:],
        "compile_s": compile_s,
        "devices": described(mesh, task.weights),
        "metrics": known[1:],
    }


def jaxrl_decode(args: argparse.Namespace) -> dict[str, Any]:
    """Greedy tokens of a batch of prompts, in one program on one device of all cores."""
    import jax
    import numpy as np

    from benchmarks.decoding import greedy
    from jaxrl.lm.model import weights
    from jaxrl.lm.model.transformer import unstack

    cfg, model = weights.load(args.model, param_dtype="float32", dtype="float32")
    prompt, new = prompts(args), args.tokens
    decode = greedy(cfg, args.batch, prompt.shape[1], new)
    model = jax.jit(unstack)(model)
    began = time.perf_counter()
    program = jax.jit(decode).lower(model, prompt).compile()
    compile_s = time.perf_counter() - began
    tokens = np.asarray(program(model, prompt))
    seconds = []
    for _ in range(args.iterations):
        began = time.perf_counter()
        jax.block_until_ready(program(model, prompt))
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "compile_s": compile_s, "tokens": tokens.tolist()}


def torch_decode(args: argparse.Namespace) -> dict[str, Any]:
    """The same tokens by `generate`."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ids = torch.as_tensor(prompts(args)).long()
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": args.tokens, "pad_token_id": 0}
    how |= {"min_new_tokens": args.tokens, "attention_mask": torch.ones_like(ids)}
    model.generation_config.eos_token_id = None
    tokens = model.eval().generate(ids, **how)[:, ids.shape[1] :]
    seconds = []
    for _ in range(args.iterations):
        began = time.perf_counter()
        model.generate(ids, **how)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "tokens": tokens.tolist(), "threads": torch.get_num_threads()}


def prompts(args: argparse.Namespace) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(100, 40_000, (args.batch, 32)).astype(np.int32)


SIDES = {"jaxrl-grpo": jaxrl_grpo, "jaxrl-decode": jaxrl_decode, "torch-decode": torch_decode}


def started(command: list[str], timeout: float) -> dict[str, Any]:
    """The last line of a process as JSON, with the most memory that it took."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=os.environ | OFFLINE
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


OFFLINE = {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}


def sides(args: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each side."""
    me = [str(Path(__file__)), args.what, "--model", str(args.model), "--tokens", str(args.tokens)]
    me += ["--iterations", str(args.iterations), "--batch", str(args.batch)]
    me += ["--prompts", str(args.prompts), "--samples", str(args.samples)]
    me += ["--micro-batch", str(args.micro_batch), "--devices", str(args.devices)]
    found = {"jaxrl": [sys.executable, *me, "--side", f"jaxrl-{args.what}"]}
    if not args.peer_python:
        return found
    if args.what == "decode":
        return found | {"transformers": [args.peer_python, *me, "--side", "torch-decode"]}
    peer = [args.peer_python, str(HERE / "peers/trl_grpo.py"), "--model", str(args.model)]
    peer += ["--prompts", str(args.prompts), "--samples", str(args.samples)]
    peer += ["--tokens", str(args.tokens), "--iterations", str(args.iterations)]
    peer += ["--micro-batch", str(args.micro_batch)]
    return found | {"trl": peer, "trl checkpointing": [*peer, "--checkpointing"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("grpo", "decode"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="processes of each side, in turn")
    parser.add_argument("--peer-python")
    parser.add_argument("--timeout", type=float, default=1800)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.side:
        import resource

        record = SIDES[args.side](args)
        record["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(record))
        return
    from benchmarks.record import machine, versions

    found: dict[str, list[dict]] = {}
    for _ in range(args.repeats):
        for name, command in sides(args).items():
            found.setdefault(name, []).append(started(command, args.timeout))
            record = found[name][-1]
            spent = record.get("iteration_s") or record["seconds"]
            peak = record["peak_memory_mb"]
            print(f"{name}: {statistics.median(spent):.2f} s, {peak:.0f} MiB", flush=True)
    tokens = {name: records[0].pop("tokens", None) for name, records in found.items()}
    for records in found.values():
        for record in records:
            record.pop("tokens", None)
    setting = {k: getattr(args, k) for k in ("what", "prompts", "samples", "batch", "tokens")}
    line: dict[str, Any] = setting | {"micro_batch": args.micro_batch, "sides": found}
    if args.what == "decode" and len(tokens) == 2:
        mine, theirs = tokens.values()
        line["same_tokens"] = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(mine)
    line |= {"machine": machine("cpu"), "versions": versions("jax", "flax")}
    print(json.dumps(line))
    if args.out:
        with args.out.open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
