"""Train a small tokenizer on what environments say: `python -m train.tokenizer --out DIR`.

Well under a minute; a turn of GuessTheNumber then takes 5 tokens where bytes take 11.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrl import envs
from jaxrl.language import LanguageEnvironment
from jaxrl.text import FORMATS, BpeTokenizer, Text, literal, make_chat
from jaxrl.text.chat import special_tokens
from jaxrl.text.pretokens import GPT2, PATTERNS
from jaxrl.train import flags


@dataclass(frozen=True)
class Args:
    out: Path  # folder to write tokenizer.json into; made if needed
    env: list[str] = field(default_factory=lambda: ["language/GuessTheNumber-easy"])  # ids
    env_args: tuple[str, ...] = ()  # fields of the environment, as NAME=VALUE, where it is one
    vocab_size: int = 512  # tokens, the 256 bytes and the special ones among them
    kind: Literal["gpt2", "qwen2", "llama3"] = "llama3"  # how texts are split before merging
    chat: Literal["plain", "chatml", "llama3", "gemma"] = "plain"  # whose special tokens it has
    episodes: int = 512  # played in each environment by each of its players
    seed: int = 0  # of these

    def __post_init__(self):
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be at least 1; try 512.")
        if self.env_args and len(self.env) > 1:
            raise ValueError(
                f"env_args={' '.join(self.env_args)} would belong to {len(self.env)} environments; "
                "give one with --env, or leave them out."
            )
        if (self.out / "tokenizer.json").exists():
            raise ValueError(f"out={self.out} holds a tokenizer.json; choose another folder.")
        least = 256 + len(special_tokens(FORMATS[self.chat]))
        if self.vocab_size < least:
            raise ValueError(f"vocab_size={self.vocab_size} is too small; try {2 * least}.")


@dataclass(frozen=True)
class Lengths:
    """The longest that was said in one environment, in tokens of the new tokenizer."""

    prompt: int
    answer: int
    response: int  # its end of turn included


def said(env: LanguageEnvironment, episodes: int, seed: int) -> Iterator[tuple[str, str]]:
    """("prompt" | "answer" | "response", text) of whole episodes by each of the players."""
    players = [env.random_player]
    if type(env).expert is not LanguageEnvironment.expert:
        players.append(env.expert)
    keys = jax.random.split(jax.random.key(seed), len(players))
    for key, player in zip(keys, players, strict=True):
        play_turn = jax.jit(jax.vmap(lambda s, k, player=player: turn(env, player, s, k)))
        reset_key, *turn_keys = jax.random.split(key, 1 + env.max_turns)
        state, ts = jax.jit(jax.vmap(env.reset))(jax.random.split(reset_key, episodes))
        yield from (("prompt", text) for text in strings(ts.obs))
        live = np.ones(episodes, bool)
        for turn_key in turn_keys:
            response, state, ts = play_turn(state, jax.random.split(turn_key, episodes))
            yield from (("response", text) for text in np.array(strings(response))[live])
            live &= ~np.asarray(ts.done)
            yield from (("answer", text) for text in np.array(strings(ts.obs))[live])


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
    tokenizer.save(str(args.out / "tokenizer.json"))


def measure(path: Path, texts: dict[str, list[str]], chat_name: str) -> Lengths:
    """The longest of each kind, around it what the form of conversation adds."""
    tokenizer = BpeTokenizer.from_file(path)
    chat = make_chat(tokenizer, chat_name)
    kinds = {"prompt": chat.first, "answer": chat.next, "response": chat.response}
    longest = {}
    for kind, distinct in texts.items():
        room = max(map(len, distinct), default=1)
        size = room + chat.overhead + 1
        say = jax.jit(lambda text, say=kinds[kind], size=size: say(text, size).length)
        longest[kind] = max((int(say(literal(text, room))) for text in distinct), default=0)
    return Lengths(**longest)


def main(args: Args) -> dict[str, Lengths]:
    """Trains and saves; returns the token lengths of each environment."""
    heard: dict[str, dict[str, list[str]]] = {}
    for env_id in args.env:
        env = envs.make(env_id, **flags.parse_fields(args.env_args))
        if not isinstance(env, LanguageEnvironment):
            raise ValueError(f"env={env_id} is not spoken to; try language/GuessTheNumber-easy.")
        texts: dict[str, list[str]] = {"prompt": [], "answer": [], "response": []}
        for kind, text in said(env, args.episodes, args.seed):
            texts[kind].append(text)
        heard[env_id] = texts
    train(args, [text for texts in heard.values() for kind in texts.values() for text in kind])
    path = args.out / "tokenizer.json"
    lengths = {}
    for env_id, texts in heard.items():
        distinct = {kind: sorted(set(found)) for kind, found in texts.items()}
        found = lengths[env_id] = measure(path, distinct, args.chat)
        print(
            f"{env_id}: at most {found.prompt} tokens in a prompt, {found.answer} in an answer, "
            f"{found.response} in a response\n  train with --tokenizer {path} --algo.prompt-tokens "
            f"{found.prompt} --algo.answer-tokens {found.answer} --algo.response-tokens "
            f"{found.response}"
        )
    return lengths


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])
