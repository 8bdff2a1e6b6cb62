"""Language agents against a host loop and against transformers: `python benchmarks/language.py`.

`--against host` plays GuessTheNumber with one and the same model twice: inside one program, and
with a host loop (the same JAX model; gem-llm's Python environments; one token at a time fetched
by the host). It needs gem-llm: pip install --no-deps gem-llm==0.1.0, and
nltk numpy pandas reasoning-gym==0.1.23. `--against transformers` decodes greedily with the same
weights in both: pip install torch transformers.
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

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import envs
from benchmarks.record import machine, versions
from jaxrl.algos.sft import Config
from jaxrl.lm import weights
from jaxrl.lm.cache import init_cache
from jaxrl.lm.config import ModelConfig, preset
from jaxrl.lm.demonstrate import demonstrate
from jaxrl.lm.learn import descend, gradient
from jaxrl.lm.model import Transformer, forward, logits, unstack
from jaxrl.lm.play import limits, play
from jaxrl.lm.sample import draw, token_keys
from jaxrl.lm.warm_up import imitation_loss
from jaxrl.program import ONE_CORE
from jaxrl.text import ByteTokenizer, make_chat

REPEATS = 5
CHAT = make_chat(ByteTokenizer())
USER, REPLY, END = 257, 258, 256  # special tokens of ByteTokenizer


def taught(env, sizes, model_config) -> Transformer:
    """A model that has learned from random play to answer in the game's form."""
    cfg, transform = Config(), optax.adam(3e-3)

    @jax.jit
    def fit(model, key):
        def step(i, carry):
            model, opt_state = carry
            key_i = jax.random.fold_in(key, i)
            episodes = demonstrate(env, CHAT, sizes, env.random_player, key_i, jnp.arange(64))
            grads, _ = gradient(
                partial(imitation_loss, cfg=cfg, on="all"), model, episodes, 8, None
            )
            model, opt_state = descend(
                transform, grads, optax.tree.norm(grads), 1.0, opt_state, model
            )
            return model, opt_state

        return jax.lax.fori_loop(0, 80, step, (model, transform.init(model)))[0]

    return fit(Transformer(model_config, nnx.Rngs(0)), jax.random.key(0))


class HostLoop:
    """Python environments between calls of jitted functions, as language agents are run today."""

    def __init__(self, env, sizes, model, games: int):
        from gem.envs.game_env.guess_the_number import GuessTheNumberEnv

        self.sizes, self.games = sizes, games
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

    def encode(self, texts: list[str | None], size: int, first: bool, newest: np.ndarray):
        """Tokens [B, size] of what the environments say, after each lane's last token."""
        tokens, length = np.zeros((self.games, size), np.int32), np.zeros(self.games, np.int32)
        for lane, text in enumerate(texts):
            if text is not None:
                ids = [USER, *text.encode(), REPLY]
                ids = ids if first else [int(newest[lane]), *ids]
                tokens[lane, : len(ids)], length[lane] = ids, len(ids)
        return tokens, length

    def play(self, seed: int) -> int:
        """All games once; the number of turns."""
        key, turns = jax.random.key(seed), 0
        for lane, peer in enumerate(self.peers):
            peer.reset(seed * 100_003 + lane)
        cache = init_cache(self.cfg, self.games, self.sizes.context)
        over = np.zeros(self.games, bool)
        newest = np.zeros(self.games, np.int32)
        texts: list[str | None] = [self.prompt] * self.games
        size, first = self.sizes.first, True
        while not over.all():
            hidden, cache = self.read(cache, *self.encode(texts, size, first, newest))
            token = np.asarray(self.sample(hidden, key, cache.length))
            said: list[list[int]] = [[int(t)] for t in token]
            live = ~over & (token != END)
            newest = np.where(over, newest, token)
            while live.any():
                token, cache = self.decode(cache, newest, live, key)
                token = np.asarray(token)
                for lane in np.flatnonzero(live):
                    said[lane].append(int(token[lane]))
                newest = np.where(live, token, newest)
                full = np.array([len(s) >= self.sizes.response for s in said])
                live = live & (token != END) & ~full
            texts = [None] * self.games
            for lane in np.flatnonzero(~over):
                text = bytes(t for t in said[lane] if t < 256).decode("latin1")
                target = self.peers[lane].game_number
                _, _, terminated, truncated, _ = self.peers[lane].step(text)
                turns += 1
                over[lane] = terminated or truncated
                if not over[lane]:
                    digits = "".join(c for c in text if c.isdigit()) or "0"
                    texts[lane] = "higher" if int(digits[:6]) < target else "lower"
            size, first = self.sizes.following + 1, False
        return turns


def against_host(games: int) -> list[dict]:
    """Turns per second of both, in alternating runs."""
    env = envs.make("gem/GuessTheNumber-easy")
    sizes = limits(env, CHAT)
    model = taught(env, sizes, replace(preset("tiny", 260), context=sizes.context))

    def played(model, key):
        record, work = play(
            model, env, CHAT, sizes, key, jnp.arange(4 * games),
            group_size=1, num_lanes=games,
        )  # fmt: skip
        return jnp.sum(record.num_turns), work, record.success.mean()

    start = time.perf_counter()
    program = jax.jit(played).lower(model, jax.random.key(0)).compile(ONE_CORE)
    compile_s = time.perf_counter() - start
    host = HostLoop(env, sizes, model, games)
    host.play(0)
    jax.block_until_ready(program(model, jax.random.key(0)))
    ours, theirs = [], []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        turns, work, success = jax.block_until_ready(program(model, jax.random.key(repeat)))
        ours.append(int(turns) / (time.perf_counter() - start))
        start = time.perf_counter()
        theirs.append(host.play(repeat) / (time.perf_counter() - start))
        print(f"{games} games: {ours[-1]:,.0f} against {theirs[-1]:,.0f} turns/s", flush=True)
    return [
        {
            "benchmark": "language-agent-play",
            "games": games,
            "model": "tiny",
            "turns_per_s": ours,
            "host_loop_turns_per_s": theirs,
            "ratio_of_medians": statistics.median(ours) / statistics.median(theirs),
            "compile_s": compile_s,
            "lane_occupancy": float(work.busy / work.steps),
            "success": float(success),
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
    model = unstack(model)
    cache = init_cache(DECODED, BATCH, PROMPT + NEW)
    hidden, cache = forward(model, prompt, jnp.full(BATCH, PROMPT), cache)
    out = jnp.zeros((BATCH, NEW), jnp.int32)
    token = jnp.argmax(logits(model, hidden[:, -1]), -1).astype(jnp.int32)

    def step(i, carry):
        token, cache, out = carry
        out = out.at[:, i].set(token)
        hidden, cache = forward(model, token[:, None], jnp.ones(BATCH, jnp.int32), cache)
        token = jnp.argmax(logits(model, hidden[:, 0]), -1).astype(jnp.int32)
        return token, cache, out

    return jax.lax.fori_loop(0, NEW, step, (token, cache, out))[2]


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
