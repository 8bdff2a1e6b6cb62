"""Playing with a language model: the record is what happened, whatever the lanes."""

import json
from dataclasses import replace
from functools import cache

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

import envs
from jaxrl.algos.sft import Config
from jaxrl.lm.learn.batch import predict
from jaxrl.lm.model.cache import init_cache
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.demonstrate import demonstrate
from jaxrl.lm.play.episodes import empty
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.rounds import Lanes, PlayContext, play, step_environments
from jaxrl.lm.play.sample import draw
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text import ByteTokenizer, literal, make_chat, to_str

ENV = envs.make("language/GuessTheNumber-easy")
CHAT = make_chat(ByteTokenizer())
SIZES = limits(ENV, CHAT)
CONFIG = replace(preset("nano", 260), width=16, num_layers=1, head_dim=8, hidden=16)
P, G = 3, 2


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIG, nnx.Rngs(params=jax.random.key(0)))


def run(model, key=7, lanes=4, refill_at=0.5, prompts=P, response=0):
    return program(lanes, refill_at, response)(model, jax.random.key(key), jnp.arange(prompts))


@cache
def program(lanes, refill_at, response):
    sizes = limits(ENV, CHAT, response)
    how = {"group_size": G, "num_lanes": lanes, "refill_at": refill_at}
    return jit(lambda model, key, index: play(model, ENV, CHAT, sizes, key, index, **how)[:2])


@pytest.fixture(scope="module")
def played(model):
    return run(model)


@pytest.fixture(scope="module")
def scripted():
    @jit
    def make(key):
        return demonstrate(ENV, CHAT, SIZES, ENV.random_player, key, jnp.arange(16))

    return make(jax.random.key(3))


def conversation(record, row):
    """[(observation, response), ...] as text, from the tokens and their masks."""
    turns = []
    for turn in range(int(record.played[row].sum())):
        mine = (np.asarray(record.turn[row]) == turn) & (
            np.arange(SIZES.context) < record.length[row]
        )
        action = np.asarray(record.action[row])
        said = [bytes(int(t) for t in np.asarray(record.token[row])[mine & a] if t < 256)
                for a in (~action, action)]  # fmt: skip
        turns.append(tuple(s.decode("latin1") for s in said))
    return turns


def test_the_sampler_and_the_learner_give_a_token_the_same_log_prob(model, played):
    record, _ = played
    reading = jit(lambda m, r: predict(m, r.token, None, Config(chunk=64)).log_prob)
    log_prob = reading(model, record)
    drawn = np.asarray(record.action[:, 1:])
    assert drawn.sum() > 50
    gap = np.abs(np.asarray(log_prob) - np.asarray(record.log_prob[:, 1:]))
    assert gap[drawn].max() < 1e-5
    assert not np.asarray(record.log_prob)[~np.asarray(record.action)].any()


@pytest.mark.parametrize(("lanes", "refill_at"), [(1, 0.5), (64, 1.0)])
def test_what_is_played_does_not_depend_on_the_lanes(model, played, lanes, refill_at):
    other, _ = run(model, lanes=lanes, refill_at=refill_at)
    for name in ("token", "action", "turn", "length", "reward", "played", "cut", "terminated"):
        np.testing.assert_array_equal(getattr(played[0], name), getattr(other, name), err_msg=name)


def test_what_is_played_from_a_prompt_does_not_depend_on_how_many_there_are(model, played):
    fewer, _ = run(model, prompts=2)
    np.testing.assert_array_equal(played[0].token[: 2 * G], fewer.token)


def test_other_keys_and_other_samples_give_other_episodes(model, played):
    other, _ = run(model, key=8)
    assert (np.asarray(played[0].token) != np.asarray(other.token)).any()
    first, second = np.asarray(played[0].token[:2])
    prompt = int(np.argmax(np.asarray(played[0].action[0])))
    assert (first[:prompt] == second[:prompt]).all() and (first != second).any()


def test_every_episode_is_played_to_its_end_and_work_is_counted(played):
    record, work = played
    assert np.asarray(record.terminated | record.truncated).all()
    assert np.asarray(record.played[:, 0]).all()
    drawn_in_steps = np.asarray(record.action).sum() - np.asarray(record.played).sum()
    assert int(work.busy) == drawn_in_steps  # the first token of a turn is drawn with the answer
    assert 0 < float(work.busy) <= float(work.steps)


def test_a_response_at_the_length_limit_is_told_as_cut(model):
    record, _ = run(model, response=3)
    ended = np.asarray(record.token == CHAT.end_of_turn)
    for row in range(P * G):
        for turn in range(int(record.played[row].sum())):
            mine = np.asarray((record.turn[row] == turn) & record.action[row])
            assert mine.sum() <= 3
            assert bool(record.cut[row, turn]) == (not ended[row][mine].any())
    assert np.asarray(record.cut).any()


def test_a_record_replays_to_its_own_observations_and_rewards(scripted):
    """Observations are in the turn that answers them, and rewards in the turn that earned them."""
    reset, step = jit(ENV.reset), jit(ENV.step)
    for row in range(4):
        key = jax.random.split(jax.random.fold_in(jax.random.key(3), row))[0]
        state, ts = reset(key)
        turns = conversation(scripted, row)
        assert turns
        for turn, (seen, said) in enumerate(turns):
            assert seen == to_str(ts.obs)
            assert not bool(ts.done)
            state, ts = step(state, literal(said, ENV.response_bytes), jax.random.key(0))
            assert float(ts.reward) == pytest.approx(float(scripted.reward[row, turn]))
        assert bool(ts.done)
        assert float(ts.metrics["success"]) == float(scripted.metrics["success"][row])


def test_the_end_of_turn_is_an_action(scripted):
    ended = np.asarray(scripted.token == CHAT.end_of_turn)
    assert (np.asarray(scripted.action)[ended]).all()
    assert ended.sum() == np.asarray(scripted.played).sum()


def test_drawn_tokens_follow_the_distribution_at_the_temperature():
    logit = jnp.asarray([0.0, 1.0, -1.0, 2.0, -30.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jit(lambda k: draw(jnp.tile(logit, (20_000, 1)), k, 2.0))(keys)
    expected = np.asarray(jax.nn.log_softmax(logit / 2.0))
    share = np.bincount(np.asarray(drawn.token), minlength=5) / 20_000
    np.testing.assert_allclose(share, np.exp(expected), atol=0.015)
    np.testing.assert_allclose(drawn.log_prob, expected[np.asarray(drawn.token)], atol=1e-5)


def test_without_a_temperature_the_likeliest_token_is_drawn():
    logit = jnp.asarray([[0.0, 3.0, 1.0], [2.0, -1.0, 1.0]])
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(draw(logit, keys, None).token, [1, 0])


def test_a_turn_ends_at_any_token_that_the_models_own_config_says(model, played):
    """A base model's end of text, say: what it says next is not part of its answer."""
    record = played[0]
    mine = np.asarray(record.action[0]) & (np.asarray(record.turn[0]) == 0)
    token = int(np.asarray(record.token[0])[mine][1])  # its second, here an end of turn
    cfg = replace(CONFIG, end_ids=(token,))
    other = jax.tree.unflatten(jax.tree.structure(Transformer(cfg, nnx.Rngs(0))),
                               jax.tree.leaves(model))  # fmt: skip
    stopped, _ = run(other)
    mine = np.asarray(stopped.action[0]) & (np.asarray(stopped.turn[0]) == 0)
    assert np.asarray(stopped.token[0])[mine][1:].tolist() == [token]
    assert not bool(stopped.cut[0, 0])


def test_every_metric_of_the_environment_is_kept_of_each_episode(model):
    mine = agents.agent(agents.Parrot(talk="a"))

    @jit
    def both(model):
        index = jnp.arange(3, dtype=jnp.int32)
        script = demonstrate(mine.env, CHAT, mine.limits, mine.env.expert, jax.random.key(0), index)
        how = {"group_size": 1, "num_lanes": 2}
        return script, play(
            model, mine.env, CHAT, mine.limits, jax.random.key(0), index, **how
        )[0]  # fmt: skip

    script, record = both(model)
    assert script.metrics.keys() == record.metrics.keys() == {"length", "success"}
    assert script.metrics["success"].tolist() == [1, 1, 1] and script.reward.sum() == 6
    np.testing.assert_array_equal(script.metrics["length"], 2 * script.metrics["success"])
    np.testing.assert_array_equal(record.metrics["length"], 2 * record.metrics["success"])


def test_a_scripted_response_that_does_not_fit_is_cut(scripted):
    assert not np.asarray(scripted.cut).any()
    short = limits(ENV, CHAT, response=4)
    record = jit(lambda key: demonstrate(ENV, CHAT, short, ENV.expert, key, jnp.arange(2)))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(record.cut, record.played)


def test_a_context_that_an_episode_could_outgrow_is_refused():
    with pytest.raises(
        ValueError, match=rf"context=64 is too short .* needs {SIZES.context} tokens"
    ):
        limits(ENV, CHAT, context=64)


def test_a_special_token_in_a_response_is_seen_in_transcripts_and_breaks_the_move(model):
    """Words that were drawn, end of turn among them, as the environment and a person read them."""
    end, user = CHAT.end_of_turn, CHAT.tokenizer.special["<|user|>"]
    writes = Transcriber(CHAT.tokenizer, 1)
    asks = [user, *b"1-10?", CHAT.tokenizer.special["<|assistant|>"]]
    said = [*b"\\box", user, *b"ed{5}", 300, end]
    record = jax.tree.map(lambda x: np.array(x[0]), empty(1, 64, 2, ()))
    tokens = [*asks, *said, *asks, *b"\xff5"]
    record = record.replace(length=np.int32(len(tokens)), played=np.array([True, True]))
    record.token[: len(tokens)] = tokens
    record.turn[len(asks) + len(said) : len(tokens)] = 1
    record.action[len(asks) : len(asks) + len(said)] = True
    record.action[len(tokens) - 2 : len(tokens)] = True
    record.cut[1], record.reward[1] = True, np.nan
    told = writes.episode(record)
    assert [turn["observation"] for turn in told["turns"]] == ["1-10?", "1-10?"]
    assert told["turns"][0]["response"] == "\\box<|user|>ed{5}<|unknown|>"
    assert told["turns"][1] == {
        "observation": "1-10?", "response": "\\xff5", "reward": None, "cut": True
    }  # fmt: skip
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("hidden", [None, 257, 259])
def test_what_an_environment_reads_of_a_response_has_its_special_tokens_in_it(model, hidden):
    mine = agents.agent(agents.Parrot(talk="a"))
    context = PlayContext(
        env=mine.env, chat=CHAT, model=model, env_key=jax.random.key(0),
        noise_key=jax.random.key(1), first_episode=jnp.int32(0), temperature=None,
        refill_at=0.5, limits=mine.limits, num_episodes=1, group_size=1,
    )  # fmt: skip
    words = [*([] if hidden is None else [hidden]), *b"a", CHAT.end_of_turn]
    state, _ = jax.vmap(mine.env.reset)(jax.random.split(jax.random.key(0), 1))
    zero = jnp.zeros(1, jnp.int32)
    response = jnp.zeros((1, 8), jnp.int32).at[0, : len(words)].set(jnp.asarray(words))
    lanes = Lanes(
        zero, state, init_cache(model.cfg, 1, 4), zero, response, zero + len(words), zero > 0
    )
    _, ts = jit(step_environments)(context, lanes)
    assert float(ts.reward[0]) == (1 if hidden is None else 0)
