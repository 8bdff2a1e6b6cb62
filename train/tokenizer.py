"""Train a small tokenizer on what environments say: `python -m train.tokenizer --out DIR`.

Well under a minute; a turn of GuessTheNumber then takes 5 tokens where bytes take 11.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from jaxrl.config import LARGEST, check_fields, check_range
from jaxrl.files import write_text
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.lengths import Lengths, fixed_answers, longest, one_of, players
from jaxrl.text import FORMATS, BpeTokenizer, Text, make_chat
from jaxrl.text.formats import special_tokens
from jaxrl.text.pretokens import GPT2, PATTERNS
from jaxrl.train import flags
from jaxrl.train.language import make_env
from jaxrl.train.paths import NewFolder

MOST_TOKENS = 2**20  # four times what the largest released tokenizers have
MOST_EPISODES = 100_000  # whose texts are held in memory at once


@dataclass(frozen=True)
class Args:
    out: NewFolder  # folder to write tokenizer.json into; made if needed
    env: list[str] = field(default_factory=lambda: ["language/GuessTheNumber-easy"])  # ids
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE, where it is one
    vocab_size: int = 512  # tokens, the 256 bytes and the special ones among them
    kind: Literal["gpt2", "qwen2", "llama3"] = "llama3"  # how texts are split before merging
    chat: Literal["plain", "chatml", "llama3", "gemma"] = "plain"  # whose special tokens it has
    episodes: int = 512  # played in each environment by each of its players
    seed: int = 0  # of these

    def __post_init__(self):
        check_fields(self)
        check_range("episodes", self.episodes, 1, MOST_EPISODES, 512)
        check_range("seed", self.seed, 0, LARGEST, 0)
        if not self.env:
            raise ValueError("env= names no environment; try language/GuessTheNumber-easy.")
        if self.env_args and len(self.env) > 1:
            raise ValueError(
                f"env_args={' '.join(self.env_args)} would belong to {len(self.env)} environments; "
                "give one with --env, or leave them out."
            )
        if (self.out / "tokenizer.json").exists():
            raise ValueError(f"out={self.out} holds a tokenizer.json; choose another folder.")
        least = 256 + len(special_tokens(FORMATS[self.chat]))
        check_range("vocab_size", self.vocab_size, least, MOST_TOKENS, 2 * least)


def texts(env: LanguageEnvironment, episodes: int, seed: int) -> Iterator[str]:
    """Everything written in whole episodes by each of the players, and what may be answered."""
    for text in fixed_answers(env):
        yield from [text] * episodes
    who = players(env)
    keys = jax.random.split(jax.random.key(seed), len(who))
    play_turn = jax.jit(
        jax.vmap(lambda n, s, k: turn(env, one_of(env, who, n), s, k), (None, 0, 0))
    )
    reset = jax.jit(jax.vmap(env.reset))
    for number, key in enumerate(keys):
        reset_key, *turn_keys = jax.random.split(key, 1 + env.max_turns)
        state, ts = reset(jax.random.split(reset_key, episodes))
        yield from strings(ts.obs)
        live = np.ones(episodes, bool)
        for turn_key in turn_keys:
            response, state, ts = play_turn(number, state, jax.random.split(turn_key, episodes))
            yield from np.array(strings(response))[live]
            live &= ~np.asarray(ts.done)
            yield from np.array(strings(ts.obs))[live]


def turn(env: LanguageEnvironment, player: Any, state: Any, key: jax.Array) -> tuple:
    """One response and what the environment makes of it."""
    player_key, env_key = jax.random.split(key)
    response = player(state, player_key)
    return response, *env.step(state, response, env_key)


def strings(text: Text) -> list[str]:
    """Texts [B] on the host."""
    data, length = np.asarray(text.bytes), np.asarray(text.length)
    return [row[:n].tobytes().decode() for row, n in zip(data, length, strict=True)]


def train(args: Args, corpus: list[str]) -> None:
    """Writes `tokenizer.json`."""
    try:
        import tokenizers as hf
    except ImportError:
        raise ImportError("train.tokenizer needs tokenizers: pip install 'jaxrl[hf]'") from None

    pattern = PATTERNS[args.kind]
    tokenizer = hf.Tokenizer(hf.models.BPE(ignore_merges=args.kind == "llama3"))
    whole = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == GPT2)
    if pattern != GPT2:
        split = hf.pre_tokenizers.Split(hf.Regex(pattern.regex), "isolated")
        whole = hf.pre_tokenizers.Sequence([split, whole])
    tokenizer.pre_tokenizer = whole  # pyright: ignore
    tokenizer.decoder = hf.decoders.ByteLevel()  # pyright: ignore
    names = special_tokens(FORMATS[args.chat])
    trainer = hf.trainers.BpeTrainer(
        vocab_size=args.vocab_size,
        initial_alphabet=sorted(hf.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[hf.AddedToken(name, special=True) for name in names],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "tokenizer.json", tokenizer.to_str(pretty=True))


def main(args: Args) -> dict[str, Lengths]:
    """Trains and saves; returns the token lengths of each environment."""
    envs_of = {}
    for env_id in args.env:
        envs_of[env_id] = make_env(env_id, flags.parse_fields(args.env_args))
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, for it may be refused
    every = [texts(env, args.episodes, args.seed) for env in envs_of.values()]
    train(args, [text for of_one in every for text in of_one])
    path = args.out / "tokenizer.json"
    chat = make_chat(BpeTokenizer.from_file(path), args.chat)
    lengths = {}
    for env_id, env in envs_of.items():
        found = lengths[env_id] = longest(env, chat, players(env), args.episodes, args.seed)
        print(
            f"{env_id}: at most {found.prompt} tokens in a prompt, {found.feedback} in a feedback, "
            f"{found.response} in a response\n  train with --tokenizer {path} --algo.prompt-tokens "
            f"{found.prompt} --algo.feedback-tokens {found.feedback} --algo.response-tokens "
            f"{found.response}"
        )
    return lengths


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])
