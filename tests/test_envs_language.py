"""Language games: what the peers' rules, held elsewhere, say nothing of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

from envs.language.guess_the_number import GuessTheNumber


def episode(guesses: list[int], target: int, **fields) -> np.ndarray:
    """The reward of each guess among 1 to 10."""
    return np.asarray(played(GuessTheNumber(turns=6, **fields), jnp.array(guesses), target))


@jit
def played(env, guesses, target):
    def turn(state, number):
        state, ts = env.step(state, env.say(number=number), jax.random.key(0))
        return state, ts.reward

    state, _ = env.reset(jax.random.key(0))
    return jax.lax.scan(turn, state.replace(target=jnp.asarray(target, jnp.int32)), guesses)[1]


def test_information_pays_how_a_guess_divides_what_is_left():
    def bits(*parts):
        share = np.array(parts) / sum(parts)
        return -np.sum(share * np.log2(share))

    # 8 is too high: 1 to 7 left; 9 tells nothing; 4: 5 to 7 left; 4 again; 11 is outside; 5 wins
    guesses = [8, 9, 4, 4, 11, 5]
    plain, paid = episode(guesses, 5), episode(guesses, 5, information=0.5)
    told = [bits(7, 1, 2), 0, bits(3, 1, 3), 0, 0, bits(1, 2)]
    np.testing.assert_allclose(paid - plain, 0.5 * np.array(told), atol=1e-6)
    assert plain.tolist() == [0, 0, 0, 0, 0, 1]
    assert episode([11, 5, 1, 1, 1, 1], 5, information=0.5)[0] == 0


def test_the_last_turn_pays_by_how_near_it_came():
    guesses = [1, 2, 3, 4, 10, 8]
    assert episode(guesses, 5)[-1] == pytest.approx(1 - 3 / 9)
    assert episode(guesses, 5, nearness=0.0)[-1] == 0
    assert episode(guesses, 8, nearness=0.0)[-1] == 1
