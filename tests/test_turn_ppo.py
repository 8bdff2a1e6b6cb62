"""PPO with a critic of turns: what it learns from, and a truncated episode's last observation."""

from dataclasses import replace
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

import envs
from jaxrl.algos import turn_ppo
from jaxrl.env import static, timestep
from jaxrl.language import LanguageEnvironment
from jaxrl.lm.learn.agent import Agent, Weights
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.rounds import limits, play
from jaxrl.lm.model.shards import Layout
from jaxrl.text import ByteTokenizer, literal, make_chat

CHAT = make_chat(ByteTokenizer())
MODEL = replace(preset("nano", 260), width=16, num_layers=1, head_dim=8, hidden=16)
CFG = turn_ppo.Config(
    num_prompts=4, num_minibatches=2, micro_batch=2, num_lanes=4, total_episodes=8, gamma=0.5
)


class Clock(flax.struct.PyTreeNode):
    turn: jax.Array


class PaysForEver(LanguageEnvironment):
    """Pays 1 a turn, whatever is said; a short clock cuts the episode off."""

    turns: int = static(3)
    terminates: bool = static(False)
    truncates: bool = static(True)
    response_bytes: int = static(2)
    max_turns = property(lambda self: self.turns)
    prompt_bytes = property(lambda self: 1)
    feedback_bytes = property(lambda self: 1)

    def reset(self, key):
        del key
        return Clock(jnp.zeros((), jnp.int32)), timestep(
            literal("?"), metrics={"success": jnp.zeros(())}
        )

    def step(self, state, action, key):
        del action, key
        turn = state.turn + 1
        last = turn >= self.turns
        terminated, truncated = (last, False) if self.terminates else (False, last)
        metrics = {"success": jnp.zeros(())}
        return Clock(turn), timestep(literal("!"), 1.0, terminated, truncated, metrics)


def played(env):
    model = Transformer(MODEL, nnx.Rngs(params=jax.random.key(0)))
    sizes = limits(env, CHAT)

    @jit
    def run(model):
        index = jnp.arange(4)
        return play(
            model, env, CHAT, sizes, jax.random.key(1), index, group_size=1, num_lanes=2
        )[0]  # fmt: skip

    return model, run(model)


@pytest.mark.parametrize("terminates", [False, True])
def test_a_truncated_episode_bootstraps_from_its_last_observation_a_terminated_one_from_zero(
    terminates,
):
    model, episodes = played(PaysForEver(terminates=terminates))
    critic = turn_ppo.Critic(jnp.zeros(16), jnp.float32(2.0))  # 1 / (1 - gamma), everywhere
    cfg = replace(CFG, gae_lambda=1.0, overlong="keep")
    rows, _ = jit(lambda m, e: turn_ppo.prepare(m, critic, e, cfg, None))(model, episodes)
    targets = [
        np.asarray(t)[np.asarray(o)] for t, o in zip(rows.value_target, rows.opens, strict=True)
    ]
    expected = [1.75, 1.5, 1.0] if terminates else [2.0, 2.0, 2.0]
    for target in targets:
        np.testing.assert_allclose(target, expected, atol=1e-5)
    ends = np.asarray(episodes.token)[np.arange(4), np.asarray(episodes.length) - 1]
    last_said_by_env = ends == 258  # the assistant's sign, after the last observation
    assert last_said_by_env.all() != terminates


def test_each_response_has_one_value_and_its_tokens_share_an_advantage():
    model, episodes = played(PaysForEver())
    critic = turn_ppo.Critic(jnp.linspace(-1, 1, 16), jnp.float32(0.0))
    rows, judged = jit(lambda m, e: turn_ppo.prepare(m, critic, e, CFG, None))(model, episodes)
    assert np.asarray(rows.opens).sum() == np.asarray(episodes.played).sum() == 12
    turn, mask = np.asarray(episodes.turn[:, 1:]), np.asarray(rows.mask)
    for row in range(4):
        for t in range(3):
            mine = np.asarray(rows.advantage[row])[mask[row] & (turn[row] == t)]
            assert len(mine) and np.ptp(mine) == 0
    weighed = np.asarray(rows.advantage)[np.asarray(rows.opens)]
    assert abs(weighed.mean()) < 1e-5 and abs(weighed.std() - 1) < 1e-4
    assert np.isfinite(judged["explained_variance"])
    np.testing.assert_allclose(
        np.asarray(rows.log_prob)[mask], np.asarray(rows.sampled_log_prob)[mask], atol=1e-5
    )


def test_the_first_step_of_an_iteration_has_ratio_one_and_the_critic_learns():
    env = envs.make("language/GuessTheNumber-easy")
    agent = Agent(env, CHAT, limits(env, CHAT), MODEL)
    state = turn_ppo.init(jax.random.key(0), cfg=CFG, agent=agent)

    @jit
    def first_step(state, key):
        index = jnp.arange(4)
        episodes, _ = play(
            state.model, env, CHAT, agent.limits, key, index, group_size=1, num_lanes=4
        )
        rows, _ = turn_ppo.prepare(state.model, state.critic, episodes, CFG, None)
        carry = (state.model, state.opt_state, state.critic, state.critic_opt_state)
        weights = Weights(jnp.zeros(()), jnp.zeros(()))
        return turn_ppo.learn(carry, rows, None, weights, cfg=CFG, layout=Layout(None, None))

    carry, metrics = first_step(state, jax.random.key(2))
    assert float(metrics["ratio_error"]) < 1e-6 and float(metrics["clip_fraction"]) == 0
    assert float(metrics["log_prob_gap"]) < 1e-5
    assert float(jnp.abs(carry[2].weight).sum()) > 0  # the critic moved


def test_options_of_the_critic_are_checked():
    for options, words in [
        ({"gae_lambda": 1.5}, "gae_lambda=1.5 must lie in"),
        ({"num_minibatches": 3}, "num_minibatches=3 does not divide num_prompts=256"),
        ({"sft_coef": 0.1, "sft_episodes": 24}, "does not divide sft_episodes=24"),
    ]:
        with pytest.raises(ValueError, match=words):
            turn_ppo.Config(**options)
    assert partial(turn_ppo.Config, sft_coef=0.1)().sft_coef == 0.1
