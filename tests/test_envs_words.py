"""Games and questions told in words: the same games, and moves read honestly from free text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import jit

import envs
from jaxrl.env import static
from jaxrl.language import ANSWER, OF, LanguageEnvironment
from jaxrl.lm.learn.report import outcome_metrics
from jaxrl.lm.play.demonstrate import demonstrate
from jaxrl.lm.play.episodes import empty
from jaxrl.lm.play.limits import limits
from jaxrl.metrics import hidden
from jaxrl.statistics import summarize_returns
from jaxrl.text import ByteTokenizer, Template, literal, make_chat, to_str
from jaxrl.train import fresh

CHAT = make_chat(ByteTokenizer())
IDS = [
    "language/GuessTheNumber-random",
    "language/Mastermind-random",
    "language/TowerofHanoi-easy",
    "reasoning/chain_sum",
    "reasoning/countdown",
]
TERSE = {
    "language/GuessTheNumber-easy": (r"Guess 1-10, 4 turns: \boxed{N}", "higher"),
    "language/Mastermind-easy": (r"Code: 2 different of 1-6, 10 turns: \boxed{1 2}", "repeated"),
    "language/TowerofHanoi-easy": (r"321|| all to C, 10 turns: \boxed{AC}", "no move"),
}


@pytest.mark.parametrize("id", IDS)
def test_an_expert_is_worth_the_same_in_both_prompts(id):
    played = {}
    for prompt in ("terse", "instruct"):
        env = envs.make(id, prompt=prompt)
        sizes = limits(env, CHAT)
        play = jax.jit(
            lambda env, sizes: demonstrate(
                env, CHAT, sizes, env.expert, jax.random.key(0), jnp.arange(12)
            ),
            static_argnums=1,
        )
        played[prompt] = play(env, sizes)
    terse, words = played["terse"], played["instruct"]
    assert np.array_equal(terse.reward, words.reward) and np.mean(terse.metrics["success"]) > 0.7
    told = {name for name in terse.metrics if not name.startswith(OF)}
    assert told == {"success", "no_answer", "wrong_form", ANSWER}
    assert terse.metrics.keys() == words.metrics.keys()
    for name in ("success", "no_answer", "wrong_form"):
        assert np.array_equal(terse.metrics[name], words.metrics[name]), name
    assert np.all(words.metrics["wrong_form"] == 0) and not np.any(words.unread | terse.unread)


def test_what_is_terse_is_what_it_was():
    for id, (task, answer) in TERSE.items():
        env = envs.make(id)
        assert to_str(opening(env)[1].obs) == task
        assert env.feedback[0] == answer and not env.in_words
        assert envs.make(id.replace("language/", "gem/")).feedback == env.feedback


@jit
def step(env, state, action):
    """One program for each structure of environment, whichever tests ask for it."""
    return env.step(state, action, jax.random.key(0))


def opening(env):
    return jit(type(env).reset)(env, jax.random.key(0))


def turns(env, state, said):
    """(state, what is answered, the TimeStep) of each response in turn."""
    for text in said:
        state, ts = step(env, state, literal(text, env.response_bytes))
        yield state, to_str(ts.obs), ts


def test_a_number_is_guessed_in_free_text():
    env = envs.make("language/GuessTheNumber-easy", prompt="instruct", turns=6)
    state, ts = opening(env)
    assert to_str(ts.obs).startswith("I have chosen a whole number from 1 to 10. Find it in at ")
    state = state.replace(target=jnp.asarray(7, jnp.int32))
    said = ["It is not 7, so 5.", "0", "5", "-7", "I take **9**", "7."]
    found = list(turns(env, state, said))
    assert [answer for _, answer, _ in found] == [
        "No, the number is higher than 5. Turns left: 5.",
        "The number lies between 1 and 10. Turns left: 4.",
        "You have named 5 before. Turns left: 3.",
        "The number lies between 1 and 10. Turns left: 2.",
        "No, the number is lower than 9. Turns left: 1.",
        "Yes, that is the number.",
    ]
    assert [float(ts.reward) for *_, ts in found] == [0, 0, 0, 0, 0, 1]
    none = next(turns(env, state, ["I do not know."]))[2]
    assert none.terminated and none.reward == np.float32(-0.1) and none.metrics["no_answer"] == 1


def test_a_code_is_the_last_row_of_digits():
    env = envs.make("language/Mastermind-hard", prompt="instruct")
    state, _ = opening(env)
    state = state.replace(code=jnp.asarray([1, 2, 3, 4], jnp.int32))
    cases = {
        "My guess: 1, 2, 4, 3.": (2, 2),
        "5 6 7 8 is wrong, so 1234": (4, 0),
        r"\boxed{4 3 2 1} and not 1 2 3 4": (0, 4),
        "1 2 3 4\n5 6 7 8": (0, 0),
    }
    for said, (black, white) in cases.items():
        after, answer, ts = next(turns(env, state, [said]))
        assert (int(after.black[0]), int(after.white[0])) == (black, white), said
        assert ts.metrics["success"] == (black == 4)
        assert answer.endswith("Yes, that is the code." if black == 4 else "Turns left: 29.")
    refused = {"12": "The code has 4 digits.", "9 9 9 9": "The digits are from 1 to 8."}
    for said, answer in refused.items():
        assert next(turns(env, state, [said]))[1].startswith(answer)
    assert next(turns(env, state, ["none"]))[1] == "There are no digits in that."


def test_a_move_of_disks_is_the_last_that_is_named():
    env = envs.make("language/TowerofHanoi-easy", prompt="instruct")
    state, ts = opening(env)
    assert "From the bottom up: A 321, B none, C none." in to_str(ts.obs)
    moves = {
        "A to C": 2, "A to B is bad: I move from peg A to peg C.": 2, "A -> B": 1, "AB": 1,
        "A \u2192 C": 2, "**A** to **C**": 2, r"\boxed{AB} or A to C": 1, r"\boxed{a, c}": 2,
    }  # fmt: skip
    for said, peg in moves.items():
        assert int(next(turns(env, state, [said]))[0].peg[0]) == peg, said
    for said in ("A B", "ABC", "CAB to", "a to c", "A 321, B none", "A and C", ""):
        _, answer, ts = next(turns(env, state, [said]))
        assert answer == "There is no move in that." and ts.metrics["no_answer"] == 1, said
    assert next(turns(env, state, ["B to A"]))[1].startswith("That is not allowed. A 321, B none")


def test_an_expression_is_the_one_around_the_last_operator():
    env = envs.make("reasoning/countdown", prompt="instruct")
    state, _ = opening(env)
    state = state.replace(number=jnp.asarray([2, 3, 4, 0], jnp.int32), target=jnp.asarray(20))
    # reward, no answer, wrong form
    cases = {
        "(2+3)*4": (1, 0, 0), "So: (2 + 3) * 4.": (1, 0, 0), "- (2+3)*4": (1, 0, 0),
        "(2+3)*4 = 20": (1, 0, 1), r"\boxed{(2+3)*4}": (1, 0, 0), "2+3=5 and 5*4=20": (0, 0, 1),
        "(2+3)*4 or 2+3+4": (0, 0, 0), "20": (-0.1, 1, 0), "2 3 4": (-0.1, 1, 0),
        "(2+3)*4" + "+0" * 20: (-0.1, 1, 0), "": (-0.1, 1, 0),
    }  # fmt: skip
    for text, wanted in cases.items():
        ts = next(turns(env, state, [text]))[2]
        got = [float(x) for x in (ts.reward, ts.metrics["no_answer"], ts.metrics["wrong_form"])]
        assert np.allclose(got, wanted), (text, got)


def test_the_form_is_paid_apart_and_once():
    env = envs.make("reasoning/chain_sum", prompt="instruct", format=0.25)
    state, _ = opening(env)
    state = state.replace(number=jnp.asarray([8, -4, 0, 0], jnp.int32))
    cases = {"4": 1.25, "8-4=4": 1.25, "4 apples": 1, "5": 0.25, "5 apples": 0, "8-4": 0, "?": 0}
    rewards = [float(next(turns(env, state, [text]))[2].reward) for text in cases]
    assert rewards == list(cases.values())
    game = envs.make("language/GuessTheNumber-easy", prompt="instruct", format=0.5, nearness=0.0)
    state, _ = opening(game)
    state = state.replace(target=jnp.asarray(7, jnp.int32))
    rewards = [float(ts.reward) for *_, ts in turns(game, state, ["1", "2", "3", "4"])]
    assert rewards == [0, 0, 0, 0.5]


def test_a_response_that_does_not_fit_is_not_judged_by_its_part():
    for id in ("reasoning/chain_sum", "reasoning/countdown", "language/TowerofHanoi-easy",
               "language/Mastermind-hard"):  # fmt: skip
        env = envs.make(id, prompt="instruct")
        state, _ = opening(env)
        said = jit(type(env).expert)(env, state, jax.random.key(1))
        whole, cut = (
            step(env, state, said.replace(cut=jnp.asarray(flag)))[1] for flag in (False, True)
        )
        assert whole.metrics["no_answer"] == 0 and cut.metrics["no_answer"] == 1, id
        assert cut.metrics["success"] == 0


def test_a_response_in_words_has_room_for_thoughts():
    sizes = [
        envs.make("reasoning/chain_sum", prompt=p).response_bytes for p in ("terse", "instruct")
    ]
    assert sizes == [14, 262]
    assert envs.make("reasoning/chain_sum", prompt="instruct", thought_bytes=7).response_bytes == 13
    with pytest.raises(ValueError, match="prompt=chatty must be terse or instruct"):
        envs.make("reasoning/chain_sum", prompt="chatty")


def test_who_still_calls_the_first_observation_prompt_is_told_its_new_name():
    with pytest.raises(
        TypeError, match=r"Old\.prompt is a field; name the first observation `task`"
    ):

        class Old(LanguageEnvironment):
            prompt = Template("say a")

    class New(LanguageEnvironment):
        prompt: str = static("instruct")
        task = Template("say a")

    assert New().prompt_bytes == 5 and New().in_words


def test_what_was_answered_is_neither_logged_nor_summarised():
    record = empty(2, 4, 1, ["success", ANSWER])
    assert hidden(ANSWER) and outcome_metrics(record).keys() >= {"success"}
    assert not [name for name in outcome_metrics(record) if hidden(name)]
    metrics = {name: np.zeros((1, 2)) for name in record.metrics}
    assert summarize_returns(np.zeros((1, 2)), metrics)["metrics"].keys() == {"success"}


def test_success_is_told_for_each_kind_of_task():
    record = empty(6, 4, 1, ["success", OF + "plus", OF + "minus"])
    plus, right = np.array([1, 1, 1, 0, 0, 0.0]), np.array([1, 1, 0, 0, 0, 1.0])
    metrics = {"success": right, OF + "plus": plus, OF + "minus": 1 - plus}
    told = outcome_metrics(record.replace(metrics=jax.tree.map(jnp.asarray, metrics)))
    shares = {name: (float(x.numerator), float(x.denominator)) for name, x in told.items()}
    assert shares["success_plus"] == (2, 3) and shares["success_minus"] == (1, 3)
    assert not [name for name in told if hidden(name)]
    outcomes = {name: x[None] for name, x in metrics.items()}
    outcomes |= {name: np.ones((1, 6)) for name in ("episode_return", "turns", "tokens")}
    outcomes |= {name: np.zeros((1, 6), bool) for name in ("cut", "unread", "cut_responses")}
    success = fresh.summary(outcomes)["success"]
    assert success["of"] == {"plus": pytest.approx(2 / 3), "minus": pytest.approx(1 / 3)}
