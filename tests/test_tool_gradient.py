"""What tools answer is observed, not learned: no loss has a gradient by it."""

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from quick import jit

from envs.tools.search import Search
from jaxrl.algos import grpo, sft, turn_ppo
from jaxrl.lm.learn import batch
from jaxrl.lm.learn.imitation import imitation_loss
from jaxrl.lm.model.params import Params, zero_critic
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.demonstrate import demonstrate
from jaxrl.lm.play.limits import limits

SMALL = agents.SMALL | {"num_prompts": 2, "group_size": 2, "num_minibatches": 1, "num_epochs": 2}
SMALL |= {"micro_batch": 2}


@pytest.fixture(scope="module")
def talk():
    """(episodes in which a tool answers, a model)."""
    env = Search(turns=2, hops=1)
    sizes = limits(env, agents.CHAT)

    @jit
    def play(key):
        index = jnp.asarray([0, 0, 1, 1])  # a group has one prompt
        return demonstrate(env, agents.CHAT, sizes, env.expert, key, index)

    played = play(jax.random.key(0))
    text = bytes(x for x in np.asarray(played.token[0]).tolist() if x < 256).decode()
    assert ": boss " in text and bool((played.reward[:, 1] == 1).all())
    worth = jnp.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]])  # of each, for a gradient
    model = agents.replace(agents.MODEL, context=sizes.context)
    policy = Transformer(model, nnx.Rngs(params=jax.random.key(0)))
    played = played.replace(reward=worth, first=int(played.start.max()))
    return played, Params(policy, zero_critic(model.width))


def unchanged(params, reference, episodes, cfg, axis):
    """Imitation learns of episodes as they are."""
    return episodes, {}


SFT = sft.Config(sft_on="actions", micro_batch=4, total_episodes=16, sft_episodes=4)
ALONE = {name: value for name, value in SMALL.items() if name != "group_size"}
LOSSES = {
    "sft": (unchanged, imitation_loss, SFT),
    "grpo": (grpo.prepare, grpo.loss, grpo.Config(**SMALL)),
    "turn_ppo": (turn_ppo.prepare, turn_ppo.loss, turn_ppo.Config(**ALONE)),
}


@pytest.mark.parametrize("name", ["sft", "grpo", "turn_ppo"])
def test_the_gradient_by_what_a_tool_answered_is_exactly_0(name, talk, monkeypatch):
    episodes, params = talk
    place = jnp.arange(episodes.token.shape[1])
    inside = place < episodes.length[:, None]
    prompt = place < episodes.start[:, None]
    result, said = (np.asarray(inside & ~prompt & x) for x in (~episodes.action, episodes.action))
    assert result.any(1).all() and said.any(1).all()
    (prepare, judged, cfg), original = LOSSES[name], batch.token_log_prob
    rows, _ = jit(lambda: prepare(params, None, episodes, cfg, None))()

    def value(bias, target):
        """The loss, where a token's log-prob is `bias` more and results were other tokens."""

        def biased(model, hidden, tokens, *how):
            count = tokens.shape[1]
            first = episodes.start if count < bias.shape[1] - 1 else jnp.ones_like(episodes.start)
            at = first[:, None] + jnp.arange(count)
            mine = jnp.take_along_axis(target, at, 1, mode="clip")
            log_prob, entropy = original(model, hidden, jnp.where(mine < 0, tokens, mine), *how)
            return log_prob + jnp.take_along_axis(bias, at, 1, mode="clip"), entropy

        monkeypatch.setattr(batch, "token_log_prob", biased)
        return judged(params, rows, cfg)[0].numerator

    none, kept = jnp.zeros(result.shape), jnp.full(result.shape, -1)
    loss, gradient = jit(jax.value_and_grad(value))(none, kept)
    assert (np.asarray(gradient)[result] == 0).all()
    assert (np.asarray(gradient)[np.asarray(prompt)] == 0).all()
    by_said = np.abs(np.asarray(gradient)[said])
    assert (by_said > 0).mean() > 0.4 and np.isfinite(by_said).all()  # some advantages are 0
    again = jit(value)
    assert again(none, jnp.where(result, 7, -1)) == again(none, kept) == loss
    assert again(none, jnp.where(said, 7, -1)) != loss
