"""Language agents against a host loop and against transformers: `python benchmarks/language.py`.

`--against host` plays GuessTheNumber with one and the same model inside one program, and with a
host loop (the same JAX model; gem-llm's Python environments; one token at a time fetched by the
host). The loop runs in two ways: each turn reads the whole conversation, as a call of `generate`
for every turn does, or only what is new, on top of a kept cache. It needs gem-llm:
pip install --no-deps gem-llm==0.1.0, and nltk numpy pandas reasoning-gym==0.1.23.
`--against transformers` decodes greedily with the same weights in both: pip install torch
transformers.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

import envs
from benchmarks.decoding import greedy
from benchmarks.record import machine, versions
from jaxrl.algos.sft import Config
from jaxrl.lm.learn.imitation import imitation_gradient
from jaxrl.lm.learn.optimizer import descend, optimizer
from jaxrl.lm.model import weights
from jaxrl.lm.model.cache import init_cache
from jaxrl.lm.model.config import ModelConfig, preset
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.shards import Layout
from jaxrl.lm.model.transformer import Transformer, forward, logits, unstack
from jaxrl.lm.play.demonstrate import demonstrate
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.rounds import play
from jaxrl.lm.play.sample import draw, token_keys
from jaxrl.program import ONE_CORE
from jaxrl.text import ByteTokenizer, make_chat
from train import devices

REPEATS = 5
CHAT = make_chat(ByteTokenizer())
USER, REPLY, END = 257, 258, 256  # special tokens of ByteTokenizer


def taught(env, sizes, model_config) -> Transformer:
    """A model that has learned from random play to answer in the game's form."""
    cfg, layout = Config(sft_on="all"), Layout(None, None)

    @jax.jit
    def fit(params, key):
        def step(i, carry):
            params, opt_state = carry
            key_i = jax.random.fold_in(key, i)
            episodes = demonstrate(env, CHAT, sizes, env.random_player, key_i, jnp.arange(64))
            grads, _ = imitation_gradient(params, episodes, cfg, layout)
            return descend(grads, params, opt_state, cfg=cfg, layout=layout)[:2]

        return jax.lax.fori_loop(0, 80, step, (params, optimizer(cfg).init(params)))[0]

    return fit(Params(Transformer(model_config, nnx.Rngs(0))), jax.random.key(0)).policy


class HostLoop:
    """Python environments between calls of jitted functions, as language agents are run today."""

    def __init__(self, env, sizes, model, games: int, keeps_cache: bool):
        from gem.envs.game_env.guess_the_number import GuessTheNumberEnv

        self.sizes, self.games, self.keeps_cache = sizes, games, keeps_cache
        self.peers = [GuessTheNumberEnv(1, env.high, env.turns) for _ in range(games)]
        self.prompt = f"Guess 1-{env.high}, {env.turns} turns: \\boxed{{N}}"
        model = jax.jit(unstack)(model)

        def read(cache, tokens, length):
            hidden, cache = forward(model, tokens, length, cache)
            last = jnp.maximum(length - 1, 0)[:, None, None]
            return jnp.take_along_axis(hidden, last, 1)[:, 0], cache

        def sample(hidden, key, position):
            keys = token_keys(key, jnp.arange(games), position)
            return draw(logits(model, hidden), keys, 1.0).token

        def decode(cache, token, live, key):
            hidden, cache = read(cache, token[:, None], live.astype(jnp.int32))
            return sample(hidden, key, cache.length), cache

        self.read, self.sample = jax.jit(read, donate_argnums=0), jax.jit(sample)
        self.decode = jax.jit(decode, donate_argnums=0)
        self.cfg = model.cfg

    def empty(self):
        return init_cache(self.cfg, self.games, self.sizes.context)

    def padded(self, rows: list[list[int]], turn: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [B, S] and their number [B]; S depends on the turn alone, to compile once."""
        size = self.sizes.first if turn == 0 else self.sizes.following + 1
        if turn and not self.keeps_cache:
            size = self.sizes.first + turn * (self.sizes.response + self.sizes.following)
        tokens = np.zeros((self.games, size), np.int32)
        for lane, ids in enumerate(rows):
            tokens[lane, : len(ids)] = ids
        return tokens, np.array([len(ids) for ids in rows], np.int32)

    def respond(self, cache, rows: list[list[int]], turn: int, key) -> tuple[list[list[int]], Any]:
        """The tokens that each live lane says after its new ones, and the cache."""
        tokens, length = self.padded(rows, turn)
        hidden, cache = self.read(cache, tokens, length)
        newest = np.asarray(self.sample(hidden, key, cache.length))
        said = [[int(token)] for token in newest]
        live = (length > 0) & (newest != END)
        while live.any():
            token, cache = self.decode(cache, newest, live, key)
            token = np.asarray(token)
            for lane in np.flatnonzero(live):
                said[lane].append(int(token[lane]))
            newest = np.where(live, token, newest)
            full = np.array([len(s) >= self.sizes.response for s in said])
            live = live & (token != END) & ~full
        return said, cache

    def step(self, lane: int, said: list[int]) -> tuple[str, bool]:
        """(what the game says, whether it is over)"""
        text = bytes(t for t in said if t < 256).decode("latin1")
        target = self.peers[lane].game_number
        _, _, terminated, truncated, _ = self.peers[lane].step(text)
        digits = "".join(c for c in text if c.isdigit()) or "0"
        return "higher" if int(digits[:6]) < target else "lower", terminated or truncated

    def play(self, seed: int) -> int:
        """All games once; the number of turns."""
        key, turns, turn = jax.random.key(seed), 0, 0
        for lane, peer in enumerate(self.peers):
            peer.reset(seed * 100_003 + lane)
        cache = self.empty()
        rows = [[USER, *self.prompt.encode(), REPLY] for _ in range(self.games)]
        while any(rows):
            said, cache = self.respond(cache, rows, turn, key)
            for lane, row in enumerate(rows):
                if not row:
                    continue
                turns += 1
                text, over = self.step(lane, said[lane])
                new = [USER, *text.encode(), REPLY]
                before = said[lane][-1:] if self.keeps_cache else row + said[lane]
                rows[lane] = [] if over else before + new
            cache, turn = cache if self.keeps_cache else self.empty(), turn + 1
        return turns


def one_program(env, sizes, games: int):
    """(model, key) -> (turns, how busy, success) of 4 * games episodes, on all devices."""
    count = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("data",))

    def played(model, key):
        index = jax.lax.axis_index("data") * 4 * games // count
        record, work, _ = play(
            model, env, CHAT, sizes, key, index + jnp.arange(4 * games // count),
            group_size=1, num_lanes=games // count,
        )  # fmt: skip
        counts = (jnp.sum(record.num_turns), work, jnp.sum(record.metrics["success"]))
        return jax.lax.psum(counts, "data")

    whole = jax.sharding.PartitionSpec()
    return jax.shard_map(
        played, mesh=mesh, in_specs=(whole, whole), out_specs=whole, check_vma=False
    )


def against_host(games: int) -> list[dict]:
    """Turns per second of all, in alternating runs."""
    env = envs.make("gem/GuessTheNumber-easy")
    sizes = limits(env, CHAT)
    model = taught(env, sizes, replace(preset("tiny", 260), context=sizes.context))
    start = time.perf_counter()
    program = jax.jit(one_program(env, sizes, games))
    program = program.lower(model, jax.random.key(0)).compile(ONE_CORE)
    compile_s = time.perf_counter() - start
    model_on_all, first_key = jax.device_put((model, jax.random.key(0)), program.input_shardings[0])
    loops = {
        "reading_all": HostLoop(env, sizes, model, games, keeps_cache=False),
        "keeping_cache": HostLoop(env, sizes, model, games, keeps_cache=True),
    }
    for loop in loops.values():
        loop.play(0)
    jax.block_until_ready(program(model_on_all, first_key))
    ours, theirs = [], {name: [] for name in loops}
    for repeat in range(REPEATS):
        key = jax.device_put(jax.random.key(repeat), program.input_shardings[0][1])
        start = time.perf_counter()
        turns, work, wins = jax.block_until_ready(program(model_on_all, key))
        ours.append(int(turns) / (time.perf_counter() - start))
        for name, loop in loops.items():
            start = time.perf_counter()
            theirs[name].append(loop.play(repeat) / (time.perf_counter() - start))
        others = ", ".join(f"{rates[-1]:,.0f} {name}" for name, rates in theirs.items())
        print(f"{games} games: {ours[-1]:,.0f} turns/s against {others}", flush=True)
    return [
        {
            "benchmark": "language-agent-play",
            "games": games,
            "model": "tiny",
            "turns_per_s": ours,
            "compile_s": compile_s,
            "lane_occupancy": float(work.busy / work.steps),
            "success": float(wins) / (4 * games),
        }
        | {f"host_loop_{name}_turns_per_s": rates for name, rates in theirs.items()}
        | {
            f"ratio_to_{name}": statistics.median(ours) / statistics.median(rates)
            for name, rates in theirs.items()
        }
    ]


DECODED = ModelConfig(
    vocab_size=2048,
    width=256,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    hidden=1024,
    family="qwen2",
    qkv_bias=True,
    qk_norm=False,
    rope_base=1e6,
)
BATCH, PROMPT, NEW = 64, 32, 128


def decoded(model, prompt):
    """Greedy tokens [B, NEW] after the prompts, in one program."""
    return greedy(DECODED, BATCH, PROMPT, NEW)(unstack(model), prompt)


def against_transformers() -> list[dict]:
    """Greedy tokens per second of both with the same weights, and whether they are the same."""
    import torch
    import transformers

    model = Transformer(DECODED, nnx.Rngs(0))
    with tempfile.TemporaryDirectory() as folder:
        weights.save(folder, DECODED, model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = theirs.eval()
    prompt = np.random.default_rng(0).integers(0, DECODED.vocab_size, (BATCH, PROMPT))

    ids = jnp.asarray(prompt, jnp.int32)
    program = jax.jit(decoded).lower(model, ids).compile()
    input_ids = torch.as_tensor(prompt)
    generate = partial(
        theirs.generate,
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        pad_token_id=0,
    )
    mine, yours = np.asarray(program(model, ids)), generate()[:, PROMPT:].numpy()
    ours, peers = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(program(model, ids))
        ours.append(BATCH * NEW / (time.perf_counter() - start))
        start = time.perf_counter()
        generate()
        peers.append(BATCH * NEW / (time.perf_counter() - start))
        print(f"decoding: {ours[-1]:,.0f} against {peers[-1]:,.0f} tokens/s", flush=True)
    return [
        {
            "benchmark": "greedy-decoding",
            "batch": BATCH,
            "new_tokens": NEW,
            "tokens_per_s": ours,
            "transformers_tokens_per_s": peers,
            "ratio_of_medians": statistics.median(ours) / statistics.median(peers),
            "same_tokens": float((mine == yours).mean()),
            "torch_threads": torch.get_num_threads(),
            "peer": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=("host", "transformers"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    args = parser.parse_args()
    if args.against == "host":
        devices.join(devices.Distributed())
        records = [record for games in (64, 256) for record in against_host(games)]
    else:
        records = against_transformers()
    where = {"machine": machine(f"{jax.device_count()} x {jax.devices()[0].platform}")}
    where |= {"versions": versions("jax", "flax")}
    with args.out.open("a") as out:
        for record in records:
            out.write(json.dumps(record | where) + "\n")
            print(json.dumps(record))


if __name__ == "__main__":
    main()
