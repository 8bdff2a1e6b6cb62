"""Talk to a model in the terminal, or play an environment: `python -m train.chat --model FOLDER`.

A run's folder, one saved by transformers, or an id of Hugging Face. Each line is a message;
`/reset` forgets what was said, `/exit` or Ctrl-D leaves, Ctrl-C stops a reply. With `--env ID` the
model plays an episode, and with `--you` you do.
"""

import codecs
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.config import Count, check_fields, check_range
from jaxrl.language import LanguageEnvironment
from jaxrl.lm import folders
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn.options import PlayConfig
from jaxrl.lm.learn.rows import with_room
from jaxrl.lm.play.talk import Full, Talk
from jaxrl.metrics import hidden
from jaxrl.printable import printable
from jaxrl.text import Text, Tokens
from jaxrl.text.text import literal, to_str
from jaxrl.train import edge, flags, language, stop, tool_worlds
from jaxrl.train.compiled import keep_compiled_programs

MOST_CONTEXT = 2048  # tokens of a conversation where none are asked for


@dataclass(frozen=True)
class Args(language.Spoken):
    model: str = ""  # a run's folder, ./FOLDER of transformers, or ORG/NAME of Hugging Face
    env: str = ""  # play this environment; `python -m envs` lists them
    env_args: tuple[str, ...] = ()  # its fields, as NAME=VALUE
    data: language.File | None = None  # rows of --env dataset
    you: bool = False  # you play it, line by line
    temperature: float = 0.7  # of the draws; 0 takes the likeliest token
    max_tokens: int = 512  # of a reply
    context: int = 0  # tokens of a conversation; 0: those of the model, at most 2048 but in play
    seed: Count = 0  # of the draws, and of the episode
    verbose: bool = False  # tell the tokens per second of each reply
    init_from: ClassVar[None] = None  # for what is common to all that load models

    def __post_init__(self):
        check_fields(self)
        self.check_spoken()
        check_range("temperature", self.temperature, 0, 100, 0.7)
        check_range("max_tokens", self.max_tokens, 1, 2**31 - 1, 512)
        check_range("context", self.context, 0, 2**31 - 1, MOST_CONTEXT)
        if self.you and not self.env:
            raise ValueError(
                "you=True needs an environment; try --env language/GuessTheNumber-easy."
            )
        if self.you and self.model:
            raise ValueError(f"model={self.model} is not asked where you play; leave it out.")
        if not self.you and not self.model:
            raise ValueError("model= names none; give a folder or an id, as Qwen/Qwen3-0.6B.")
        if self.env_args and not self.env:
            given = " ".join(self.env_args)
            raise ValueError(f"env_args={given} needs an environment; give --env, or leave it out.")
        if self.data is not None and not (self.env and flags.reads_data(self.env)):
            raise ValueError(
                f"data={self.data} is not read by env={self.env or None}; try --env dataset."
            )


class Terminal(stop.StopSignal):
    """What is typed and shown. Ctrl-C stops a reply that is being written, else the command."""

    def __init__(self, verbose: bool):
        super().__init__(lambda: "")
        self.verbose = verbose
        self.replies = False

    def remembers(self, signum: int) -> bool:
        if not self.replies or self.signum or signum != stop.signal.SIGINT:
            return False
        self.signum = signum
        return True

    def line(self) -> str | None:
        """What the user says next, None at the end."""
        typed = sys.stdin is not None and sys.stdin.isatty()
        if typed:
            show("> ")
        try:
            line = sys.stdin.readline() if sys.stdin is not None else ""
            line.encode()
        except UnicodeError as error:
            raise ValueError(f"what was typed is not UTF-8 ({error}).") from None
        if not line and typed:
            show("\n")
        return line.rstrip("\r\n") if line else None

    def stream(self, tokens: Iterator[int], words: Sequence[bytes]) -> list[int]:
        """Show a reply as it is written, and return it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        said: list[int] = []
        self.signum, self.replies, began = 0, True, 0.0
        try:
            for token in tokens:
                began = began or time.perf_counter()  # what came before may have been compiled
                said.append(token)
                show(printable(decoder.decode(words[min(token, len(words) - 1)])))
                if self.signum:
                    break
        finally:
            self.replies = False
        show(printable(decoder.decode(b"", True)) + "\n")
        if self.verbose:
            pace = (len(said) - 1) / (time.perf_counter() - began) if len(said) > 1 else 0
            edge.say(f"{len(said)} tokens, {pace:.1f} tokens/s")
        return said


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def load(args: Args, env: LanguageEnvironment | None = None) -> Talk:
    """The model that the options name, before its first word in this world of tools, if it is one.

    ValueError where there is none.
    """
    folder = folders.model_folder(args.model)
    if folder is None or not folder.is_dir():
        raise ValueError(
            f"model={args.model} is no folder; give a run's, one saved by transformers, or an id "
            "of Hugging Face such as Qwen/Qwen3-0.6B."
        )
    how = (args.chat, "", args.dtype, args.date, args.thinking)
    tools = () if env is None else tool_worlds.tools_of(env)
    tokenizer, config, model = folders.start(args.model, folder, args.tokenizer, *how, tools)
    assert model is not None
    if args.context > config.context:
        raise ValueError(
            f"context={args.context} is more than the {config.context} tokens that the model was "
            f"made for; try {config.context}."
        )
    if args.system:  # also of a run, which has its own
        told = tokenizer.chat.replace(first_piece=HostChat(tokenizer).opening(args.system))
        tokenizer = replace(tokenizer, chat=told)
    host = HostChat(tokenizer)
    most = config.context if args.env else min(config.context, MOST_CONTEXT)  # an episode ends
    temperature = args.temperature or None
    return Talk(model, host, context=args.context or most, temperature=temperature, seed=args.seed)


def converse(args: Args, terminal: Terminal) -> None:
    """Lines and replies in turn."""
    talk = load(args)
    while (line := terminal.line()) is not None:
        if line.strip() == "/exit":
            return
        if line.strip() == "/reset":
            talk.reset()
        elif line.strip():
            try:
                talk.say(line)
            except Full as full:
                edge.say(f"{full}; /reset, or start with a larger --context.")
                continue
            terminal.stream(talk.reply(args.max_tokens), talk.host.words)
            if not talk.ended and not terminal.signum:
                edge.say(f"(the reply was cut at {limit(args, talk)})")


def limit(args: Args, talk: Talk) -> str:
    full = talk.length + 1 >= talk.context
    return f"context={talk.context}" if full else f"max_tokens={args.max_tokens}"


def play(args: Args, terminal: Terminal) -> None:
    """One episode, shown turn by turn."""
    args = language.complete(args)
    env = language.make_env(args.env, flags.env_fields(args))
    player: Any = Person(terminal, env)
    if not args.you:
        talk = load(args, env)
        spoken = talk.host.tokenizer
        env, chat = tool_worlds.in_world(env, spoken)
        talk.host = HostChat(replace(spoken, chat=chat))
        player = Player(args, talk, terminal, env)
    reset_key, *keys = jax.random.split(jax.random.key(args.seed), env.max_turns + 1)
    state, ts = jax.jit(env.reset)(reset_key)
    step, total = jax.jit(env.step), 0.0
    for turn, key in enumerate(keys, 1):
        tell(ts.obs)
        action = player.move(ts.obs)
        if action is None:
            return
        state, ts = step(state, action, key)
        total += float(ts.reward)
        show(f"turn {turn}: reward {float(ts.reward):g}\n")
        if bool(ts.done):
            break
    tell(ts.obs)
    ended = "terminated" if bool(ts.terminated) else "truncated"
    known = {name: float(x) for name, x in sorted(ts.metrics.items()) if not hidden(name)}
    show(f"{ended}: return {total:g}" + "".join(f", {k} {x:g}" for k, x in known.items()) + "\n")


def tell(text: Text) -> None:
    """What the environment says, marked as such."""
    said = printable(to_str(text)).rstrip("\n")
    if said:
        show("| " + said.replace("\n", "\n| ") + "\n")


@dataclass
class Person:
    """Moves by the line."""

    terminal: Terminal
    env: LanguageEnvironment

    def move(self, obs: Text) -> Text | None:
        """What is typed; None at the end. What is too long is asked for again."""
        del obs
        while (line := self.terminal.line()) is not None and line.strip() != "/exit":
            size = len(line.encode())
            if size <= self.env.response_bytes:
                return literal(line, self.env.response_bytes)
            edge.say(f"a move has at most {self.env.response_bytes} bytes, this has {size}")
        return None


@dataclass
class Player:
    """Moves by a model, which reads the whole episode."""

    args: Args
    talk: Talk
    terminal: Terminal
    env: LanguageEnvironment

    def __post_init__(self):
        """Replies are shorter where the longest episode would not fit else."""
        env, tokenizer, context = self.env, self.talk.host.tokenizer, self.talk.context
        cfg = with_room(env, tokenizer, PlayConfig(response_tokens=1))  # the end of a turn
        least = language.sizes_of(env, tokenizer.chat, cfg).context
        room = (context - least) // env.max_turns
        if room < 1:
            raise ValueError(
                f"context={context} is too short for {self.args.env}, whose longest episode needs "
                f"{least + env.max_turns}; try a larger --context, or a model made for more."
            )
        self.most = min(self.args.max_tokens, env.response_bytes + 1, room)

    def move(self, obs: Text) -> Text | None:
        """What the model says to this, or None where it was stopped."""
        self.talk.say(to_str(obs))
        said = self.terminal.stream(self.talk.reply(self.most), self.talk.host.words)
        if self.terminal.signum:
            return None
        ids = np.zeros(self.most, np.int32)
        ids[: len(said)] = said
        tokens = Tokens(jnp.asarray(ids), jnp.asarray(len(said), jnp.int32), jnp.asarray(False))
        return self.talk.host.chat.tokenizer.decode(tokens, self.env.response_bytes)


def main(args: Args) -> None:
    """Talks or plays until the user has enough."""
    keep_compiled_programs()
    terminal = Terminal(args.verbose)
    with terminal:
        (play if args.env else converse)(args, terminal)


def run(argv: Sequence[str]) -> None:
    """The command line: one line and exit code 2 for bad input."""
    flags.run(Args, __doc__ or "", argv, main)


if __name__ == "__main__":
    run(sys.argv[1:])
