"""How many tokens a conversation's parts take, and sizes that cannot hold them refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.host_world import HostWorld
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.learn.options import AgentConfig, PlayConfig
from jaxrl.lm.play.demonstrate import PlayerFunction, demonstrate
from jaxrl.lm.play.episodes import Episodes
from jaxrl.lm.play.limits import Limits, limits
from jaxrl.text import Chat, Text, literal, resize

EPISODES = 256  # played to see how long things get


@dataclass(frozen=True)
class Lengths:
    """The longest of each part, in tokens with what the form of conversation adds."""

    prompt: int
    feedback: int
    response: int  # its end of turn included


def players(env: LanguageEnvironment) -> list[PlayerFunction]:
    """The players that an environment has; if none, one who says nothing."""
    names = [
        name
        for name in ("random_player", "expert")
        if getattr(type(env), name) is not getattr(LanguageEnvironment, name)
    ]
    return [getattr(env, name) for name in names] or [partial(_say_nothing, env)]


def _say_nothing(env: LanguageEnvironment, state: Any, key: jax.Array) -> Text:
    del state, key
    return literal("", env.response_bytes)


def one_of(env: LanguageEnvironment, who: Sequence[PlayerFunction], number: Any) -> PlayerFunction:
    """The player of this number, which may be traced: one program plays them all."""
    said = [lambda *x, play=play: resize(play(*x), env.response_bytes) for play in who]
    return lambda state, key: jax.lax.switch(number, said, state, key)


def longest(
    env: LanguageEnvironment,
    chat: Chat,
    who: Sequence[PlayerFunction],
    episodes: int = EPISODES,
    seed: int = 0,
) -> Lengths:
    """The longest in whole fresh episodes by each of these players, and of what may be answered."""
    sizes = limits(env, chat)
    found = [(0, _longest_answer(env, chat, sizes), 0)]

    @jax.jit
    def play(number, key):
        index = jnp.arange(episodes, dtype=jnp.int32)
        return demonstrate(env, chat, sizes, one_of(env, who, number), key, index)

    for number in range(len(who)):
        found.append(_lengths(play(number, jax.random.fold_in(jax.random.key(seed), number))))
    return Lengths(*np.max(found, 0).tolist())


def fixed_answers(env: LanguageEnvironment) -> list[str]:
    """What the environment may answer word for word, also to moves that no player makes."""
    if type(env).feedback is LanguageEnvironment.feedback:  # it does not say
        return []
    return [text for text in env.feedback if isinstance(text, str)]


def _longest_answer(env: LanguageEnvironment, chat: Chat, sizes: Limits) -> int:
    answers = [literal(text, env.feedback_bytes) for text in fixed_answers(env)]
    if not answers:
        return 0
    batch = jax.tree.map(lambda *x: jnp.stack(x), *answers)
    length = jax.jit(jax.vmap(lambda text: chat.next(text, sizes.following).length))(batch)
    return int(np.max(np.asarray(length)))


def _lengths(record: Episodes) -> tuple[int, int, int]:
    token, action, turn, length = (
        np.asarray(x) for x in (record.token, record.action, record.turn, record.length)
    )
    inside = np.arange(token.shape[1]) < length[:, None]

    def most(mask: np.ndarray, turns: range) -> int:
        return max((int((mask & (turn == t)).sum(1).max()) for t in turns), default=0)

    turns = record.reward.shape[1]
    observed, spoken = inside & ~action, inside & action
    return most(observed, range(1)), most(observed, range(1, turns + 1)), most(spoken, range(turns))


def check_lengths(
    env_id: str,
    env: LanguageEnvironment,
    chat: Chat,
    sizes: Limits,
    cfg: AgentConfig,
    scripted: bool,
) -> None:
    """ValueError where sizes asked for cannot hold what a few episodes hold, by who is imitated.

    Sizes that hold whatever can be said need no look.
    """
    if isinstance(env, HostWorld):  # what it will say nobody knows
        return
    enough = limits(env, chat)
    checks = []
    if cfg.unread == "stop":
        if cfg.prompt_tokens and not env.num_rows:  # of rows `with_rows` knows all
            checks += [("prompt", sizes.first, enough.first)]
        if cfg.feedback_tokens:
            checks += [("feedback", sizes.following, enough.following)]
    if scripted:
        checks += [("response", sizes.response, enough.response)]
    if all(size >= most for _, size, most in checks):
        return
    imitated = env.expert if cfg.sft_player == "expert" else env.random_player
    found = longest(env, chat, [imitated] if scripted else players(env)[:1])
    for name, size, _ in checks:
        needed = getattr(found, name)
        if needed > size:
            raise ValueError(
                f"{name}_tokens={size} is too short for {env_id}: a {name} of {needed} tokens was "
                f"seen; try --algo.{name}-tokens {needed}, or leave it out."
            )


def check_tools(
    env_id: str, env: LanguageEnvironment, chat: Chat, tools: int, cfg: PlayConfig, own: int
) -> None:
    """ValueError where what tells of so many tools is longer than there is room for.

    `own` is a given model's context, 0 for one that is made as large as is needed.
    """
    told, enough = chat.first_piece.overhead, limits(env, chat)
    room = (
        (f"prompt_tokens={cfg.prompt_tokens}", f"--algo.prompt-tokens {enough.first}"),
        (f"context={cfg.context}", f"--algo.context {enough.context}"),
        (f"the model's context of {own} tokens", "a model with a longer one"),
    )
    sizes = (cfg.prompt_tokens, cfg.context, own)
    for size, (name, way_out) in zip(sizes, room, strict=True):
        if 0 < size <= told:
            raise ValueError(
                f"{name} is too short for {env_id}, whose {tools} tools take {told} tokens to tell "
                f"of; try {way_out}, or fewer tools."
            )


def unread_reason(means: dict[str, Any], *, agent: Agent) -> str | None:
    """Why a run should not go on in which something was not read; None where all of it was."""
    share = np.asarray(means.get("unread_share", 0.0), np.float64)
    share = share[np.isfinite(share)]
    if not share.size or share.max() == 0:
        return None
    sizes, enough = agent.limits, limits(agent.env, agent.chat)
    what = f"unread_share={share.max():.3g}: in so many episodes what the environment said"
    if sizes.first >= enough.first and sizes.following >= enough.following:
        way_out = (
            "was longer than its prompt_bytes and feedback_bytes say, or held what the tokenizer "
            "cannot read: bytes without a token or that are no UTF-8, or characters not in NFC"
        )
    else:
        way_out = (
            f"did not fit {sizes.first} and {sizes.following} tokens; try --algo.prompt-tokens "
            f"{enough.first} --algo.feedback-tokens {enough.following}"
        )
    return f"{what} {way_out}. With --algo.unread mask such episodes are not learned from."
