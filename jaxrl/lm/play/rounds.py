"""Playing: batched episodes of many turns, from the first prompt to the last reward, inside jit.

A lane plays one episode at a time. A round has three parts: `respond` (every lane writes its
response token by token), `step_environments`, and `answer` (what they say enters the cache in one
pass, if another turn follows, and lanes whose episode is over take the next one of the queue). The
prompt's keys and values are computed once for a group of samples.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl.env import TimeStep
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.model.cache import Cache, init_cache, replace_rows
from jaxrl.lm.model.transformer import Transformer, forward, logits, unstack
from jaxrl.lm.play.episodes import Episodes, empty, metric_names
from jaxrl.lm.play.limits import Limits
from jaxrl.lm.play.sample import draw, token_keys
from jaxrl.text import Text, Tokens
from jaxrl.wrappers import tree_where


class Prompts(flax.struct.PyTreeNode):
    """P episodes at their first prompt; leaves [P, ...]."""

    env_state: Any
    told: Text  # first observations
    token: jax.Array  # int32 [P, F]
    cache: Cache  # capacity F
    hidden: jax.Array  # [P, D]: after the last token
    cut: jax.Array  # bool [P]: the observation did not fit


class Lanes(flax.struct.PyTreeNode):
    """B lanes; leaves [B, ...]."""

    episode: jax.Array  # int32: its row of the record; the number of episodes where idle
    env_state: Any
    cache: Cache
    turn: jax.Array  # int32
    response: jax.Array  # int32 [R]: this turn's tokens so far
    written: jax.Array  # int32: their number
    waiting: jax.Array  # bool: the response is complete, the environment is to answer


class Work(flax.struct.PyTreeNode):
    """How busy the lanes were; float32 []."""

    steps: jax.Array  # decoding steps times lanes
    busy: jax.Array  # of these, the ones that drew a token


class PlayContext(flax.struct.PyTreeNode):
    """Everything that stays the same from the first round to the last."""

    env: LanguageEnvironment
    chat: Any
    model: Transformer
    env_key: jax.Array
    noise_key: jax.Array
    first_episode: jax.Array  # int32 []: global index of this device's first episode
    temperature: Any  # float32 [], None: the likeliest token
    refill_at: Any  # float32 []
    limits: Limits = flax.struct.field(pytree_node=False)
    num_episodes: int = flax.struct.field(pytree_node=False)  # N on this device
    group_size: int = flax.struct.field(pytree_node=False)

    def ends_turn(self, token: jax.Array) -> jax.Array:
        """bool [...]: the form's end of turn, or another that the model's own config names."""
        ends = jnp.asarray((self.chat.end_of_turn, *self.model.cfg.end_ids), jnp.int32)
        return jnp.any(token[..., None] == ends, -1)


def play(
    model: Transformer,
    env: LanguageEnvironment,
    chat: Any,
    sizes: Limits,
    key: jax.Array,
    prompt_index: jax.Array,
    *,
    group_size: int,
    num_lanes: int,
    temperature: float | jax.Array | None = 1.0,
    refill_at: float | jax.Array = 0.5,
    in_rows: bool = False,
) -> tuple[Episodes, Work, Prompts]:
    """`group_size` episodes from each of the prompts with these global indices [P].

    Row p * group_size + g of the record is sample g of prompt p. What is played depends on (key,
    global prompt, sample) alone: not on lanes, batch or devices. When `refill_at` of the lanes
    have finished their responses, the environments answer and free lanes take up new episodes;
    the others then go on with theirs. With `in_rows` prompt i is row i of the environment's list.
    """
    how: Any = {"group_size": group_size, "temperature": temperature, "refill_at": refill_at}
    context, opening_key = make_context(model, env, chat, sizes, key, prompt_index, **how)
    env_state, ts = resets(env, opening_key, prompt_index, in_rows)
    prompts = read_prompts(context, env_state, ts.obs)
    names = metric_names(env)
    record = empty(context.num_episodes, sizes.context, sizes.max_turns, names, sizes.first)

    def unfinished(carry):
        lanes, _, queue, _ = carry
        return jnp.any(active(context, lanes)) | (queue < context.num_episodes)

    def play_round(carry):
        lanes, record, queue, work = carry
        lanes, record, work = respond(context, lanes, record, work)
        env_state, ts = step_environments(context, lanes)
        lanes, record, queue = answer(context, prompts, lanes, record, queue, env_state, ts)
        return lanes, record, queue, work

    lanes = idle_lanes(context, prompts, min(num_lanes, context.num_episodes))
    zero = jnp.zeros((), jnp.float32)
    start = (lanes, record, jnp.zeros((), jnp.int32), Work(zero, zero))
    _, record, _, work = jax.lax.while_loop(unfinished, play_round, start)
    return record, work, prompts


def make_context(
    model: Transformer,
    env: LanguageEnvironment,
    chat: Any,
    sizes: Limits,
    key: jax.Array,
    prompt_index: jax.Array,
    *,
    group_size: int,
    temperature: float | jax.Array | None,
    refill_at: float | jax.Array,
) -> tuple[PlayContext, jax.Array]:
    """What stays the same, and the key by which the environments begin."""
    opening_key, env_key, noise_key = jax.random.split(key, 3)
    context = PlayContext(
        env=env,
        chat=chat,
        model=unstack(model),
        env_key=env_key,
        noise_key=noise_key,
        first_episode=prompt_index[0] * group_size,
        temperature=temperature,
        refill_at=refill_at,
        limits=sizes,
        num_episodes=prompt_index.shape[0] * group_size,
        group_size=group_size,
    )
    return context, opening_key


@jax.named_scope("prompt")
def resets(
    env: LanguageEnvironment, key: jax.Array, prompt_index: jax.Array, in_rows: bool
) -> tuple[Any, TimeStep]:
    """(state, TimeStep) [P] of fresh episodes with these global indices."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(prompt_index)
    return jax.vmap(env.reset_row)(prompt_index, keys) if in_rows else jax.vmap(env.reset)(keys)


@jax.named_scope("prompt")
def read_prompts(context: PlayContext, env_state: Any, told: Text) -> Prompts:
    """The model's reading of what episodes say first [P]."""
    size = context.limits.first
    with jax.named_scope("encode"):
        tokens = jax.vmap(lambda text: context.chat.first(text, size))(told)
    cache = init_cache(context.model.cfg, told.length.shape[0], size)
    hidden, cache = forward(context.model, tokens.ids, tokens.length, cache)
    last = _last(hidden, tokens.length)
    return Prompts(env_state, told, tokens.ids, cache, last, tokens.cut)


def idle_lanes(context: PlayContext, prompts: Prompts, num_lanes: int) -> Lanes:
    """Lanes without an episode."""
    zeros = jnp.zeros(num_lanes, jnp.int32)
    like = jax.tree.map(lambda x: jnp.zeros((num_lanes, *x.shape[1:]), x.dtype), prompts.env_state)
    return Lanes(
        episode=zeros + context.num_episodes,
        env_state=like,
        cache=init_cache(context.model.cfg, num_lanes, context.limits.context),
        turn=zeros,
        response=jnp.zeros((num_lanes, context.limits.response), jnp.int32),
        written=zeros,
        waiting=zeros > 0,
    )


def active(context: PlayContext, lanes: Lanes) -> jax.Array:
    """bool [B]: the lane has an episode."""
    return lanes.episode < context.num_episodes


def _last(hidden: jax.Array, length: jax.Array) -> jax.Array:
    """[B, D]: the hidden state of the last of `length` tokens in each row of [B, S, D]."""
    return jnp.take_along_axis(hidden, jnp.maximum(length - 1, 0)[:, None, None], 1)[:, 0]


@jax.named_scope("decode")
def respond(
    context: PlayContext, lanes: Lanes, record: Episodes, work: Work
) -> tuple[Lanes, Episodes, Work]:
    """Every active lane writes on its response, until enough of them are complete."""
    busy = active(context, lanes)
    enough = jnp.maximum(jnp.ceil(context.refill_at * jnp.sum(busy, dtype=jnp.float32)), 1)

    def writing(lanes):
        return busy & ~lanes.waiting

    def unfinished(carry):
        lanes, _, _ = carry
        return jnp.any(writing(lanes)) & (jnp.sum(busy & lanes.waiting) < enough)

    def step(carry):
        lanes, record, work = carry
        who = writing(lanes)
        newest = jnp.take_along_axis(lanes.response, lanes.written[:, None] - 1, 1)
        hidden, cache = forward(context.model, newest, who.astype(jnp.int32), lanes.cache)
        lanes, record = put_token(context, lanes.replace(cache=cache), record, hidden[:, 0], who)
        work = Work(work.steps + who.shape[0], work.busy + jnp.sum(who, dtype=jnp.float32))
        return lanes, record, work

    return jax.lax.while_loop(unfinished, step, (lanes, record, work))


def put_token(
    context: PlayContext, lanes: Lanes, record: Episodes, hidden: jax.Array, who: jax.Array
) -> tuple[Lanes, Episodes]:
    """The lanes `who` draw the token that follows `hidden` [B, D], their newest token's state.

    The token enters the record and the response; the cache only with the next one.
    """
    position = lanes.cache.length
    keys = token_keys(context.noise_key, context.first_episode + lanes.episode, position)
    drawn = draw(logits(context.model, hidden), keys, context.temperature)
    row = jnp.where(who, lanes.episode, context.num_episodes)  # beyond the record: dropped
    at = (row, position)
    record = record.replace(
        token=record.token.at[at].set(drawn.token, mode="drop"),
        action=record.action.at[at].set(True, mode="drop"),
        turn=record.turn.at[at].set(lanes.turn, mode="drop"),
        log_prob=record.log_prob.at[at].set(drawn.log_prob, mode="drop"),
        length=record.length.at[row].set(position + 1, mode="drop"),
    )
    lane = jnp.arange(who.shape[0], dtype=jnp.int32)
    slot = jnp.where(who, lanes.written, context.limits.response)
    written = lanes.written + who
    ended = context.ends_turn(drawn.token)
    full = written == context.limits.response
    cut = jnp.where(who, full & ~ended, False)
    record = record.replace(cut=record.cut.at[row, lanes.turn].set(cut, mode="drop"))
    lanes = lanes.replace(
        response=lanes.response.at[lane, slot].set(drawn.token, mode="drop"),
        written=written,
        waiting=jnp.where(who, ended | full, lanes.waiting),
    )
    return lanes, record


@jax.named_scope("environment")
def step_environments(context: PlayContext, lanes: Lanes) -> tuple[Any, TimeStep]:
    """(state, TimeStep) of every lane's environment after its response, as if it were complete.

    The cut at which environments on the host, rewards in Python and tools enter.
    """

    def step(state, response, written, key):
        ended = context.ends_turn(response[jnp.maximum(written - 1, 0)])
        tokens = Tokens(response, written - ended, jnp.zeros((), jnp.bool_))
        text = context.chat.tokenizer.decode(tokens, context.env.response_bytes)
        return context.env.step(state, text, key)

    keys = token_keys(context.env_key, context.first_episode + lanes.episode, lanes.turn)
    return jax.vmap(step)(lanes.env_state, lanes.response, lanes.written, keys)


def answer(
    context: PlayContext,
    prompts: Prompts,
    lanes: Lanes,
    record: Episodes,
    queue: jax.Array,
    env_state: Any,
    ts: TimeStep,
) -> tuple[Lanes, Episodes, jax.Array]:
    """Complete responses get the environments' answers; free lanes take episodes of the queue.

    `env_state` and `ts` [B, ...] are what stepping every lane gave; that of a lane which still
    writes is ignored. Both kinds of lane end with the first token of their next response drawn.
    """
    ready = active(context, lanes) & lanes.waiting
    record = keep_outcome(context, lanes, record, ts, ready)
    over = ready & ts.done
    lanes = lanes.replace(
        env_state=_where(ready, env_state, lanes.env_state), turn=lanes.turn + ready
    )
    reads = ready & ~over
    if context.env.truncates:
        reads |= over & ~ts.terminated
    hidden = jnp.zeros((over.shape[0], context.model.cfg.width), context.model.cfg.dtype)
    if context.env.max_turns > 1 or context.env.truncates:  # or nobody ever reads an answer
        reading = partial(read_answer, context, obs=ts.obs, who=reads)
        lanes, record, hidden = jax.lax.cond(
            jnp.any(reads), reading, lambda *kept: (*kept, hidden), lanes, record
        )
    lanes = lanes.replace(episode=jnp.where(over, context.num_episodes, lanes.episode))
    lanes, record, queue, fresh, first = take_episodes(context, prompts, lanes, record, queue)
    hidden = jnp.where(fresh[:, None], first, hidden)
    starts = fresh | (ready & ~over)
    lanes = lanes.replace(
        written=jnp.where(starts, 0, lanes.written), waiting=lanes.waiting & ~starts
    )
    putting = partial(put_token, context, hidden=hidden, who=starts)
    lanes, record = jax.lax.cond(jnp.any(starts), putting, lambda *kept: kept, lanes, record)
    return lanes, record, queue


def keep_outcome(
    context: PlayContext, lanes: Lanes, record: Episodes, ts: TimeStep, ready: jax.Array
) -> Episodes:
    """The record with this turn's reward, and the ending where the episode is over."""
    row = jnp.where(ready, lanes.episode, context.num_episodes)
    last = jnp.where(ready & ts.done, lanes.episode, context.num_episodes)
    return record.replace(
        reward=record.reward.at[row, lanes.turn].set(ts.reward, mode="drop"),
        played=record.played.at[row, lanes.turn].set(True, mode="drop"),
        terminated=record.terminated.at[last].set(ts.terminated, mode="drop"),
        truncated=record.truncated.at[last].set(ts.truncated & ~ts.terminated, mode="drop"),
        metrics={
            name: x.at[last].set(ts.metrics[name].astype(x.dtype), mode="drop")
            for name, x in record.metrics.items()
        },
    )


@jax.named_scope("answer")
def read_answer(
    context: PlayContext, lanes: Lanes, record: Episodes, obs: Text, who: jax.Array
) -> tuple[Lanes, Episodes, jax.Array]:
    """The lanes `who` append their response's last token and the answer; hidden [B, D] after it."""
    size, longest = context.limits.following, context.env.feedback_bytes

    def following(text):
        text = text.replace(bytes=text.bytes[:longest])
        return context.chat.next(text, size)

    with jax.named_scope("encode"):
        tokens = jax.vmap(following)(obs)
    newest = jnp.take_along_axis(lanes.response, jnp.maximum(lanes.written - 1, 0)[:, None], 1)
    chunk = jnp.concatenate([newest, tokens.ids], 1)
    start = lanes.cache.length + 1
    length = jnp.where(who, tokens.length + 1, 0)
    hidden, cache = forward(context.model, chunk, length, lanes.cache)
    step = jnp.arange(size, dtype=jnp.int32)
    inside = who[:, None] & (step < tokens.length[:, None])
    where = jnp.where(who, lanes.episode, context.num_episodes)
    row = jnp.where(inside, lanes.episode[:, None], context.num_episodes)
    at = (row, start[:, None] + step)
    record = record.replace(
        token=record.token.at[at].set(tokens.ids, mode="drop"),
        turn=record.turn.at[at].set(jnp.broadcast_to(lanes.turn[:, None], row.shape), mode="drop"),
        length=record.length.at[where].set(start + tokens.length, mode="drop"),
        unread=record.unread.at[where].max(tokens.cut, mode="drop"),
    )
    return lanes.replace(cache=cache), record, _last(hidden, length)


def take_episodes(
    context: PlayContext, prompts: Prompts, lanes: Lanes, record: Episodes, queue: jax.Array
) -> tuple[Lanes, Episodes, jax.Array, jax.Array, jax.Array]:
    """Lanes without an episode take the next of the queue, its prompt already read.

    Returns lanes, record, queue, which lanes took one, and their hidden state [B, D].
    """
    free = ~active(context, lanes)
    candidate = queue + jnp.cumsum(free, dtype=jnp.int32) - 1
    fresh = free & (candidate < context.num_episodes)
    episode = jnp.where(fresh, candidate, lanes.episode)
    prompt = jnp.where(fresh, episode // context.group_size, 0)
    mine = jax.tree.map(lambda x: x[prompt], prompts.replace(cache=None))
    size = context.limits.first

    cache = replace_rows(lanes.cache, fresh, prompts.cache, prompt)
    row = jnp.where(fresh, episode, context.num_episodes)
    token = record.token.at[row, :size].set(mine.token, mode="drop")
    lanes = lanes.replace(
        episode=episode,
        env_state=_where(fresh, mine.env_state, lanes.env_state),
        cache=cache,
        turn=jnp.where(fresh, 0, lanes.turn),
    )
    record = record.replace(token=token, unread=record.unread.at[row].set(mine.cut, mode="drop"))
    return lanes, record, queue + jnp.sum(fresh, dtype=jnp.int32), fresh, mine.hidden


def _where(who: jax.Array, on_true: Any, on_false: Any) -> Any:
    return jax.vmap(tree_where)(who, on_true, on_false)
