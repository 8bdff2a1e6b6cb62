"""A reward model: its loss on a batch, where it is read, and what it learns of pairs."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from jaxrl.algos import reward_model
from jaxrl.lm import learn
from jaxrl.lm.model.log_prob import hidden_states
from jaxrl.metrics import quotient
from jaxrl.program import members
from train import reward_model as train_reward_model

SMALL: dict[str, Any] = {name: x for name, x in agents.SMALL.items() if name != "sft_episodes"}
REWARD = np.array([[1, 0], [0, 0], [0, 0], [0, 0], [0, 1], [2, 1]], np.float32)


def test_a_batchs_loss_is_bradley_terrys_of_the_head_after_the_last_token():
    cfg = reward_model.Config(**SMALL, center=0.25)
    head = np.random.default_rng(0).normal(size=8).astype(np.float32)
    critic = learn.Critic(jnp.asarray(head), jnp.zeros(()))
    params = agents.params().replace(critic=critic)
    record = agents.episodes(REWARD)
    token = record.token.at[1::2, : record.first].set(record.token[::2, : record.first])
    length = jnp.asarray([11, 14, 11, 11, 11, 9])  # 14: all that there is room for
    record = record.replace(token=token, length=length)
    batch, _ = learn.pairs_of(None, params, None, record, cfg, None)
    sums, metrics = jit(partial(reward_model.loss, cfg=cfg))(params, batch)
    longer = jnp.pad(token, ((0, 0), (0, 1)))
    hidden = np.asarray(jit(hidden_states)(params.policy, longer))
    reward = hidden[np.arange(6), np.asarray(length) - 1] @ head
    chosen, rejected = reward[[0, 5]], reward[[1, 4]]
    expected = np.log1p(np.exp(rejected - chosen)) + 0.25 * (chosen + rejected) ** 2
    np.testing.assert_allclose(sums.numerator, expected.sum(), rtol=1e-4)
    assert sums.denominator == 2
    assert quotient(metrics["accuracy"]) == np.mean(chosen > rejected)
    assert quotient(metrics["chosen_reward"]) == pytest.approx(chosen.mean(), rel=1e-4)


class Half(agents.Parrot):
    """Pays for a response whose first byte is one of the lower half."""

    def step(self, state, action, key):
        low = jnp.where(action.bytes[0] < 128, ord("a"), ord("b"))
        said = action.replace(bytes=action.bytes.at[0].set(low.astype(jnp.uint8)))
        return super().step(state, said, key)


def test_pairs_that_the_model_at_the_start_plays_are_told_apart_and_its_play_stays():
    sizes: dict[str, Any] = {"num_prompts": 64, "total_episodes": 128 * 40, "num_lanes": 128}
    cfg = reward_model.Config(**SMALL | sizes, learning_rate=0.03)
    mine = agents.agent(Half(turns=1, response_bytes=1))
    program, of = agents.program(reward_model, cfg, mine, max_count=40)
    start = program.init(program.place(of))
    reference = jax.tree.map(np.asarray, start.reference)
    state, log = program.run(start, of, 40)
    first, last = agents.means(log, 0), agents.means(log, 39)
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5) and first["accuracy"] == 0
    assert last["accuracy"] > 0.8 and last["loss"] < 0.5, last
    assert abs(last["episode_return"] - first["episode_return"]) < 0.2, "it plays as at first"
    jax.tree.map(np.testing.assert_array_equal, reference, state.reference)
    assert float(np.abs(state.params.critic.weight).max()) > 0
    assert not np.any(state.params.critic.bias)


def pairs(count):
    return "\n".join(
        json.dumps({"prompt": "q", "chosen": f"y{i}", "rejected": f"n{i}"}) for i in range(count)
    )


def test_the_last_tenth_of_a_file_is_kept_apart_and_judged_at_the_end(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(pairs(20))
    args = train_reward_model.Args(
        data=path, model="nano", algo=reward_model.Config(**SMALL), env_args=("turns=1",)
    )
    task = train_reward_model.TRAINER.setup(args)
    of = members([0, 1], task.cfg, task.env)
    states = jit(jax.vmap(lambda key: task.init(key, jax.tree.map(lambda x: x[0], of), axis=None)))(
        jax.random.split(jax.random.key(0))
    )
    params, reference = task.outcome.trained(states)
    weight = jnp.ones_like(params.critic.weight)
    told = task.outcome.evaluate((params, reference), of, 8)
    assert told["per_seed"] == [0, 0], "0 everywhere: nothing is above anything"
    critic = params.critic.replace(weight=weight)
    told = task.outcome.evaluate((params.replace(critic=critic), reference), of, 8)
    assert told["episodes_per_seed"] == 2 and told["metrics"]["told_pairs"]["mean"] == 1
    assert told["metrics"]["reward_margin"]["mean"] != 0
    path.write_text(pairs(1))
    with pytest.raises(ValueError, match="holds one pair; two are needed"):
        train_reward_model.TRAINER.setup(args)


def test_a_reward_model_plays_nothing(tmp_path):
    with pytest.raises(ValueError, match="is a reward model, which plays nothing"):
        train_reward_model.TRAINER.reload(tmp_path, None)
    with pytest.raises(ValueError, match="eval_episodes=3 is odd"):
        train_reward_model.TRAINER.setup(replace(train_reward_model.Args(), eval_episodes=3))


def test_pairs_are_those_of_the_reward_and_margins_of_the_file():
    record = agents.episodes(REWARD)
    margin = jnp.repeat(jnp.asarray([0.5, 0.0, -0.25]), 2)
    given = record.replace(metrics={learn.MARGIN: margin})
    batch, known = learn.pairs_of(None, None, None, given, reward_model.Config(**SMALL), None)
    assert batch.sign.tolist() == [1, -1, 0, 0, -1, 1]
    assert batch.margin.tolist() == margin.tolist()
    assert quotient(known["tied_pairs"]) == pytest.approx(1 / 3)
