"""What the trainers of language agents share: their flags, the agent, evaluation, saving."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from jaxrl import envs, hub, memory
from jaxrl.algos import sft
from jaxrl.env import Wrapper
from jaxrl.envs.fields import fields_of
from jaxrl.language import LanguageEnvironment
from jaxrl.lm import folders
from jaxrl.lm.learn.agent import Agent, load_judge, load_weights
from jaxrl.lm.learn.lengths import check_lengths, check_tools, unread_reason
from jaxrl.lm.learn.options import AgentConfig, PlayConfig
from jaxrl.lm.learn.rows import longest_row, with_room
from jaxrl.lm.learn.sizes import OF_A_TOKEN, evaluation_parts, training_parts
from jaxrl.lm.model.config import check_lora
from jaxrl.lm.model.params import Params
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.limits import Limits, limits
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.policy import named_leaves
from jaxrl.program import Member
from jaxrl.text import Chat
from jaxrl.train import chat_data, flags, fresh, judge, loop
from jaxrl.train.host_language import Hosted, host_run, introduced, is_hosted, with_host
from jaxrl.train.paths import File, Model, TokenizerOf
from jaxrl.train.run_folder import read_config
from jaxrl.train.tool_worlds import in_world, tools_of
from jaxrl.train.trainer import Outcome, Task, Trainer


def today() -> str:
    """As 2026-01-31."""
    return datetime.date.today().isoformat()


@dataclass(frozen=True)
class Spoken:
    """Which model speaks, and in which form."""

    model: str = "nano"  # from scratch: nano, tiny, small or base; or ./FOLDER or a Hub's ORG/NAME
    tokenizer: TokenizerOf | None = None  # tokenizer.json; by default the model's own, or bytes
    chat: Literal["", "plain", "chatml", "llama3", "gemma"] = ""  # by default what fits
    system: str = ""  # message before the conversation; by default what the model's template has
    thinking: Literal["", "on", "off"] = ""  # as the model's template has it; by default its own
    date: str = field(default_factory=today)  # what the model's template takes for now, as of start
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation, not of the parameters
    data: File | None = None  # rows of --env dataset; or JSONL of chat messages to imitate

    def check_spoken(self) -> None:
        """ValueError for a date that there is not."""
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError:
            raise ValueError(f"date={self.date} is no day; try {today()}.") from None


AFTER_CHATS = 64  # episodes played after imitating conversations, where their number is not given


@dataclass(frozen=True)
class Options(Hosted, Spoken, loop.Options):
    env: str = "language/GuessTheNumber-easy"  # environment id; `python -m envs` lists them
    init_from: Model | None = None  # start from a run's first seed, or such a folder
    lora_rank: int = 0  # train adapters of this rank beside frozen matrices; 0: every parameter
    lora_alpha: float = 32.0  # what they add is times lora_alpha / lora_rank
    split: bool = False  # parameters and optimiser state over the devices, for a large model
    eval_episodes: int = 1024  # fresh episodes of each seed at the end; 64 after chats of --data

    def __post_init__(self):
        super().__post_init__()
        if self.eval_every:
            raise ValueError(
                f"eval_every={self.eval_every} is for agents that see arrays; leave it out: a "
                "language agent's own episodes are fresh, see success in its metrics."
            )
        check_lora(self.lora_rank, self.lora_alpha)
        self.check_spoken()
        self.check_hosted()

    def files(self) -> dict[str, Path]:
        """Those that it reads whenever it starts: the form of conversations lies there too."""
        found = {"data": self.data}
        if self.tokenizer is not None:
            found["tokenizer"] = hub.local(self.tokenizer, weights=False)
        if self.init_from is not None:
            found["init_from"] = hub.local(self.init_from)
        else:
            found["model"] = folders.model_folder(self.model)
        found["reward_model"] = getattr(self, "reward_model", None)
        return {name: path for name, path in found.items() if path is not None}


Read = Callable[[Path, folders.ChatTokenizer], Episodes]  # of --data


def declare(
    name: str,
    algorithm: ModuleType,
    presets: Mapping[str, Any],
    options: type[Any],
    read: Read = chat_data.read,
) -> Trainer:
    """The trainer of an algorithm for language agents; `read` reads the file that it learns of."""
    setup = partial(make_task, name, algorithm, read=read)
    return Trainer(name, algorithm, presets, options, setup, reload, complete)


def complete(args: Any) -> Any:
    """The options with `prompt=instruct` for who knows words; a run's own for its model.

    A person knows them, who plays where `model` is "". Left as they are where the prompt is given,
    or the environment has none. Who imitates conversations asks little of the environment's game.
    """
    if isinstance(args, Options) and is_hosted(args) and not args.devices:
        args = replace(args, devices=1)
    imitates = getattr(args, "data", None) and not flags.reads_data(args.env)
    if imitates and getattr(args, "eval_episodes", 0) == Options.eval_episodes:
        args = replace(args, eval_episodes=AFTER_CHATS)
    field = fields_of(envs.spec(args.env).constructor).get("prompt")
    if field is None or field.default != "terse" or "prompt" in flags.parse_fields(args.env_args):
        return args
    folder = args.init_from or (folders.model_folder(args.model) if args.model else None)
    if folder is None and args.model:
        return args
    prompt = "instruct"
    if folder is not None and folder.is_dir() and folders.is_run(folder):
        options = read_config(folder)["options"] if (folder / "config.json").is_file() else {}
        talked = options.get("data") and not flags.reads_data(options["env"])  # imitated chats
        asked = "instruct" if talked else "terse"
        prompt = flags.parse_fields(options.get("env_args", ())).get("prompt", asked)
    given = () if prompt == "terse" else (f"prompt={prompt}",)
    return replace(args, env_args=(*args.env_args, *given))


def make_task(
    name: str,
    algorithm: ModuleType,
    args: Any,
    read: Read = chat_data.read,
    becomes: Callable[[folders.ChatTokenizer, Agent], Outcome] | None = None,
) -> Task:
    """An algorithm for language agents as the host loop wants it; ValueError for what cannot be.

    `read` reads the file that it learns of, and `becomes` says what of what it trained.
    """
    cfg = args.algo
    tokenizer, agent, weights = make_agent(args, cfg, read)
    agent, scorer = with_judge(args, tokenizer, agent)
    folders.check_saved(tokenizer, agent.model_config)  # before hours of training
    host = host_run(args, algorithm, agent)

    def init(key, member, *, axis):
        return algorithm.init(key, cfg=member.cfg, agent=of(member, agent), axis=axis)

    def update(state, key, member, *, axis):
        return algorithm.update(state, key, cfg=member.cfg, agent=of(member, agent), axis=axis)

    return Task(
        name=name,
        init=init,
        update=update,
        layout=partial(algorithm.layout, cfg, agent),
        cfg=cfg,
        env=agent.env,
        num_iterations=cfg.num_iterations,
        steps_per_iteration=cfg.episodes,
        outcome=becomes(tokenizer, agent) if becomes else outcome(tokenizer, agent, scorer),
        parts=training_parts(cfg, agent),
        unit="episodes",
        warm_up=cfg.sft_steps,
        num_blocks=1 if host else cfg.num_blocks,
        minibatch_rows=cfg.episodes * agent.limits.context,
        weights=agent.model_config.num_bytes,
        one_by_one=True,
        start=starting(weights, scorer),
        shown=lambda state: state.shown,
        transcribe=Transcriber(agent.chat.tokenizer, cfg.group_size),
        refuse=partial(unread_reason, agent=agent) if cfg.unread == "stop" else None,
        host=host,
    )


def with_judge(
    args: Any, tokenizer: folders.ChatTokenizer, agent: Agent
) -> tuple[Agent, Params | None]:
    """The agent with the reward model that the options name, if they do, and its weights."""
    folder = getattr(args, "reward_model", None)
    if folder is None:
        return agent, None
    if agent.host is not None:
        agent.host.close()
        raise ValueError(
            f"reward_model={folder} is of the one program, and env={args.env} or --reward meets "
            "Python; leave one of them out."
        )
    structure, weights = judge.load(folder, tokenizer, agent)
    return replace(agent, judge=structure), weights


def starting(weights: Transformer | None, scorer: Params | None) -> Callable[[Any], Any] | None:
    """What gives a fresh state the weights that are not random; None where all are."""
    if weights is None and scorer is None:
        return None
    leaves = None if weights is None else named_leaves(weights)

    def start(state: Any) -> Any:
        state = state if leaves is None else load_weights(state, leaves)
        return state if scorer is None else load_judge(state, scorer)

    return start


def outcome(
    tokenizer: folders.ChatTokenizer, agent: Agent, scorer: Params | None = None
) -> Outcome:
    """Models are saved with their tokenizer, and play fresh episodes."""
    return Outcome(
        trained=lambda state: state.params.policy,
        save=partial(folders.save_models, tokenizer, agent.model_config),
        evaluate=partial(fresh.evaluate_models, agent=agent, judge=scorer),
        parts=partial(evaluation_parts, agent, fresh.lanes(agent)),
        how_to_play="read it: python -m train.transcripts --run {}",
    )


def reload(folder: Path, args: Any) -> tuple[Any, Outcome]:
    """The models that a finished run kept, and what can be done with them."""
    trained, tokenizer, agent = reload_agent(folder, args)
    return trained, outcome(tokenizer, agent)


def reload_agent(folder: Path, args: Any) -> tuple[Any, folders.ChatTokenizer, Agent]:
    """The models that a finished run kept, their tokenizer, and the agent that plays them."""
    env, tokenizer = (
        make_env(args.env, flags.env_fields(args)),
        folders.load_chat_tokenizer(folder / "policy"),
    )
    model_config, trained = folders.load_models(folder)
    if tokenizer.tokenizer.vocab_size > model_config.vocab_size:
        raise ValueError(
            f"{folder}/policy/chat.json has a tokenizer of {tokenizer.tokenizer.vocab_size} tokens,"
            f" model.json a model of {model_config.vocab_size}; copy both again from one run."
        )
    env, tokenizer = introduced(args, env, tokenizer)
    env, chat = in_world(env, tokenizer)
    cfg = with_room(env, tokenizer, args.algo)
    agent = Agent(env, chat, sizes_of(env, chat, cfg), model_config)
    return trained, tokenizer, with_host(args, agent, cfg.group_size)


def of(member: Member, agent: Agent) -> Agent:
    """The agent in a member's environment."""
    return replace(agent, env=member.env)


def make_agent(
    args: Any, cfg: AgentConfig, read: Read = chat_data.read
) -> tuple[folders.ChatTokenizer, Agent, Transformer | None]:
    """The tokenizer of the agent that the options name, it, and its weights if not random.

    ValueError where the options do not fit.
    """
    if args.split and cfg.optimizer == "muon":
        raise ValueError("optimizer=muon needs whole matrices; leave --split out or try adam.")
    env = make_env(args.env, flags.env_fields(args))
    data = None if flags.reads_data(args.env) else args.data
    imitates = bool(cfg.sft_steps) or cfg.sft_coef is not None or isinstance(cfg, sft.Config)
    scripted = imitates and data is None
    if imitates and data is not None and read is not chat_data.read:
        option = "sft_steps" if cfg.sft_steps else "sft_coef"
        raise ValueError(
            f"{option}={getattr(cfg, option)} imitates scripted play, and data={data} holds none; "
            "leave one of them out, or imitate with train.sft and go on with --init-from."
        )
    if scripted:
        check_player(args.env, env, cfg.sft_player)
    how = (args.dtype, args.date, args.thinking, tools_of(env))
    tokenizer, model, weights = folders.start(
        args.model, args.init_from, args.tokenizer, args.chat, args.system, *how
    )
    env, tokenizer = introduced(args, env, tokenizer)
    env, chat = in_world(env, tokenizer)
    if tokenizer.tools:
        own = 0 if weights is None else model.context
        check_tools(args.env, env, chat, len(tokenizer.tools), cfg, own)
    if args.lora_rank:
        model = replace(model, lora_rank=args.lora_rank, lora_alpha=args.lora_alpha)
    sizes = sizes_of(env, chat, with_room(env, tokenizer, cfg))
    check_lengths(args.env, env, chat, sizes, cfg, scripted)
    examples = None if data is None else read(data, tokenizer)
    if examples is not None:
        longest = examples.token.shape[1]
        check_longest(args.data, longest, cfg, None if weights is None else model.context)
        sizes = replace(sizes, context=max(sizes.context, longest))
        size = len(examples.length) * longest * OF_A_TOKEN
        memory.check_host("context", longest, size)
    if weights is None:
        model = replace(model, context=sizes.context)
    elif model.context < sizes.context:
        tokens, row = longest_row(env, tokenizer)
        prompt = f" (the prompt of {row} has {tokens})" if tokens else ""
        raise ValueError(
            f"the model's context of {model.context} tokens is too short for {args.env}, whose "
            f"longest episode needs {sizes.context}{prompt}; set --algo.response-tokens lower."
        )
    given = weights is not None
    agent = Agent(env, chat, sizes, model, given, args.split, examples)
    return tokenizer, with_host(args, agent, cfg.group_size), weights


def check_longest(data: Path, longest: int, cfg: AgentConfig, room: int | None) -> None:
    """ValueError for conversations of a file that fit no context, or no model of this room."""
    whose = f"is too short for {data}, whose longest conversation has {longest} tokens"
    if 0 < cfg.context < longest:
        raise ValueError(f"context={cfg.context} {whose}; try --algo.context {longest}.")
    if room is not None and room < longest:
        raise ValueError(f"the model's context of {room} tokens {whose}; leave longer ones out.")


def make_env(env_id: str, fields: Mapping[str, Any]) -> LanguageEnvironment:
    """The environment that is spoken to; ValueError where the id names another kind."""
    env = inner = envs.make(env_id, **fields)
    if isinstance(env, LanguageEnvironment):
        return env
    while isinstance(inner, Wrapper):
        inner = inner.env
    if isinstance(inner, LanguageEnvironment):
        raise ValueError(
            f"env={env_id} is a {type(inner).__name__} inside of a {type(env).__name__}, which a "
            "language agent cannot play; let its constructor return it bare."
        )
    raise ValueError(
        f"env={env_id} is not spoken to; try language/GuessTheNumber-easy, or train.ppo."
    )


def sizes_of(env: LanguageEnvironment, chat: Chat, cfg: PlayConfig) -> Limits:
    """The sizes of conversations that the options ask for."""
    return limits(
        env, chat, cfg.response_tokens, cfg.context, cfg.prompt_tokens, cfg.feedback_tokens
    )


def check_player(env_id: str, env: LanguageEnvironment, player: str) -> None:
    """ValueError where the environment has no such player to learn from."""
    method = {"expert": "expert", "random": "random_player"}[player]
    if getattr(type(env), method) is getattr(LanguageEnvironment, method):
        raise ValueError(
            f"sft_player={player}: {env_id} has no such player; write its {method}(state, key), or "
            "leave the supervised steps out."
        )
