"""Environments as Gymnasium's: its own checkers, equality with jax, every autoreset mode."""

import sys
import warnings
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.utils.env_match import check_environments_match
from gymnasium.vector import AutoresetMode

import envs
from envs.bridges import BRIDGES
from envs.gymnasium import gymnasium_id, own_ids
from envs.gymnasium.spaces import from_numpy, to_gymnasium, to_numpy
from envs.registry import TABLE
from jaxrl.env import Environment, timestep
from jaxrl.spaces import Box, Discrete, MultiDiscrete, TextSpace
from jaxrl.text import literal, to_str
from jaxrl.wrappers import EpisodeStats, TimeLimit

QUICK = ["CartPole-v1", "GridWorld-v0", "probe/Doors-v0", "probe/MultiTarget-v0", "Pendulum-v1"]
# gem/ says what language/ says, and a game of random level what those of one level say.
DISTINCT = [i for i in sorted(TABLE) if i[:4] != "gem/" and not i.endswith(("-easy", "-hard"))]
# What it finds unusual in the bounds of rules, in those of Gymnasium's own CartPole too.
BOUNDS = ("is probably too", "symmetric and normalized", "maximum and minimum values are equal")


def quick(ids, chosen):
    return [id if id in chosen else pytest.param(id, marks=pytest.mark.slow) for id in ids]


@pytest.mark.parametrize("id", quick(DISTINCT, QUICK))
def test_gymnasiums_checker_passes_and_warns_of_bounds_only(id):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        env = gymnasium.make(gymnasium_id(id))
        check_env(env.unwrapped)
        env.reset(seed=3)
        env.step(env.action_space.sample())  # through its passive checker
    told = [str(w.message) for w in told if not any(known in str(w.message) for known in BOUNDS)]
    assert told == []


def test_steps_equal_those_in_jax_bit_for_bit_with_the_keys_that_are_promised():
    inner = envs.make("probe/FreshRandomness-v0")
    env = envs.to_gymnasium(inner)
    step, reset = jax.jit(EpisodeStats(inner).step), jax.jit(EpisodeStats(inner).reset)

    def key(seed, episode, t):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), episode), t)

    for episode, seed in enumerate((7, None, None)):
        obs, info = env.reset(seed=seed)
        state, ts = reset(key(7, episode, 0))
        np.testing.assert_array_equal(obs, ts.obs)
        assert info == {} and obs.flags.writeable
        for t in range(1, 4):
            obs, reward, terminated, truncated, info = env.step(t % 2)
            state, ts = step(state, jnp.int32(t % 2), key(7, episode, t))
            np.testing.assert_array_equal(obs, ts.obs)
            assert (reward, terminated, truncated) == (ts.reward, ts.terminated, ts.truncated)
            assert info == {name: float(x) for name, x in ts.metrics.items()}
            if terminated or truncated:
                break


class Mixed(Environment):
    """Every kind of space; counts from a drawn number to 6, where it terminates."""

    @property
    def observation_space(self):
        image = Box(0, 255, (2, 2, 1), np.uint8)
        pair = (MultiDiscrete((3, 4)), image)
        return {"count": Discrete(9), "share": Box(0, 1, ()), "pair": pair, "said": TextSpace(6)}

    @property
    def action_space(self):
        return {"move": MultiDiscrete((2, 3)), "push": Box(-1, 1, (2,)), "say": TextSpace(6)}

    def reset(self, key):
        count = jax.random.randint(key, (), 0, 6, jnp.int32)
        return count, timestep(self._see(count, literal("begin", 6)), metrics={"success": 0.0})

    def step(self, state, action, key):
        count = state + 1
        reward = action["move"][1] + action["push"][0]
        seen = self._see(count, action["say"])
        return count, timestep(seen, reward, count >= 6, metrics={"success": count >= 6})

    def _see(self, count, said):
        share = (count / 6).astype(jnp.float32)
        pair = (jnp.stack([count % 3, count % 4]), jnp.full((2, 2, 1), count, jnp.uint8))
        return {"count": count, "share": share, "pair": pair, "said": said}


def of_both_kinds(env, mode, num_envs):
    """Our vector environment, and Gymnasium's own around single ones."""
    ours = envs.to_gymnasium_vec(env, num_envs, autoreset_mode=mode)
    singles = [partial(envs.to_gymnasium, env)] * num_envs
    return ours, gymnasium.vector.SyncVectorEnv(singles, autoreset_mode=mode)


MODES = list(AutoresetMode)
ROUNDED = ("MemoryChain-v0", "Pendulum-v1")  # in a batch XLA rounds their arithmetic otherwise
PARITY = ["mixed", "probe/FreshRandomness-v0", *(i for i in DISTINCT if "Fresh" not in i)]


@pytest.mark.parametrize("id", quick(PARITY, ["mixed", "probe/FreshRandomness-v0"]))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_vector_environment_equals_gymnasiums_own_around_single_ones(id, mode):
    """In every array, mask and dtype of what they return: the ends, the next firsts, the infos."""
    env = TimeLimit(Mixed(), 4) if id == "mixed" else envs.make(id)
    ours, theirs = of_both_kinds(env, mode, 3)
    assert ours.metadata["autoreset_mode"] is mode
    assert (ours.observation_space, ours.action_space) == (
        theirs.observation_space,
        theirs.action_space,
    )
    equal = partial(data_equivalence, exact=id not in ROUNDED)
    assert equal(ours.reset(seed=5), theirs.reset(seed=5))
    ours.action_space.seed(0)
    ended = np.zeros(2, int)
    for t in range(16):
        action = ours.action_space.sample()
        found = ours.step(action)
        assert equal(found, theirs.step(action))
        assert found[0] in ours.observation_space
        ended += [found[2].sum(), found[3].sum()]
        if mode is AutoresetMode.DISABLED and (over := found[2] | found[3]).any():
            with pytest.raises(ResetNeeded, match="have no episode; call reset"):
                ours.step(action)
            seed = 40 if t == 5 else None
            options = [{"reset_mask": over.copy()} for _ in range(2)]
            again = ours.reset(seed=seed, options=options[0])
            assert equal(again, theirs.reset(seed=seed, options=options[1]))
    assert equal(ours.reset(), theirs.reset()) and equal(ours.reset(seed=1), theirs.reset(seed=1))
    if id == "mixed":
        assert ended.all()  # both ways


def test_what_an_episode_ended_with_stands_beside_the_next_ones_beginning():
    env = envs.to_gymnasium_vec("probe/Counter-v0", 2, episode_length=2)
    env.reset(seed=0)
    env.step(np.zeros(2, int))
    obs, reward, terminated, truncated, infos = env.step(np.zeros(2, int))
    assert terminated.all() and not truncated.any() and reward.tolist() == [1.0, 1.0]
    assert obs.tolist() == [[0.0], [0.0]] and [x.tolist() for x in infos["final_obs"]] == [[2], [2]]
    assert infos["final_info"]["episode_return"].tolist() == [2.0, 2.0]
    assert "episode_return" not in infos


def test_a_truncated_episode_is_not_terminated_and_lengths_are_counted():
    env = envs.to_gymnasium("Pendulum-v1", max_steps=2)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:] for _ in range(2)]
    assert [(end[0], end[1]) for end in ends] == [(False, False), (False, True)]
    assert ends[1][2]["episode_length"] == 2.0


def test_environments_of_one_structure_share_their_programs():
    heavy, light = (envs.to_gymnasium("CartPole-v1", gravity=g) for g in (20.0, 1.0))
    assert heavy._programs is light._programs
    for env in (heavy, light):
        env.reset(seed=0)
    assert heavy._programs.advance._cache_size() <= 1
    speeds = [[env.step(1)[0][3] for _ in range(3)][-1] for env in (heavy, light)]
    assert speeds[0] != speeds[1] and heavy._programs.advance._cache_size() == 1


def test_every_id_is_one_of_gymnasiums_and_its_spec_can_be_written_down():
    assert "jaxrl/gymnasium.CartPole-v1" not in gymnasium.registry
    native = (id for id in own_ids() if envs.spec(id).source in ("native", *BRIDGES))
    for id in native:
        spec = gymnasium.spec(gymnasium_id(id))
        assert gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
    assert gymnasium_id("language/Mastermind-easy") == "jaxrl/language.Mastermind-easy"
    one, other = (
        gymnasium.make(f"{module}jaxrl/GridWorld-v0", goal_reward=3.0)
        for module in ("", "jaxrl.envs.gymnasium:")
    )
    check_environments_match(one, other, 5)
    mode = AutoresetMode.NEXT_STEP
    env = gymnasium.make_vec("jaxrl/GridWorld-v0", num_envs=3, autoreset_mode=mode)
    assert env.num_envs == 3 and env.metadata["autoreset_mode"] is mode


def test_texts_are_strings_of_at_most_so_many_bytes():
    env = envs.to_gymnasium("reasoning/chain_sum")
    assert isinstance(env.reset(seed=0)[0], str)
    space = to_gymnasium(TextSpace(4))
    assert "äö" in space and "äöü" not in space and b"a" not in space and "" in space
    said = from_numpy(TextSpace(4), "äöü")
    assert to_str(said) == "äö" and bool(said.cut) and not from_numpy(TextSpace(4), "äö").cut
    assert to_numpy(TextSpace(4), said) == "äö"


def test_bad_input_is_refused_in_one_line(monkeypatch):
    def refuses(match, f, *args, **kwargs):
        with pytest.raises(ValueError, match=match) as told:
            f(*args, **kwargs)
        assert "\n" not in str(told.value)

    single, batched = envs.to_gymnasium, envs.to_gymnasium_vec
    refuses("No environment 'CartPol'; near: CartPole-v1", single, "CartPol")
    refuses("env is a int and must be a jaxrl.Environment or an id", single, 3)
    refuses("env is a VecEnv and must be", batched, envs.make_vec("GridWorld-v0", 2), 2)
    refuses("gravity: fields are for an id", single, envs.make("CartPole-v1"), gravity=1.0)
    refuses("num_envs=0 must be at least 1; try 8", batched, "CartPole-v1", 0)
    refuses(
        "autoreset_mode='never' must be one of 'NextStep'",
        batched,
        "CartPole-v1",
        2,
        autoreset_mode="never",
    )
    env = single("CartPole-v1")
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    refuses("action=2 must be integers of Discrete", env.step, 2)
    refuses("action=0.5 must be integers", env.step, 0.5)
    refuses(r"action has shape \(1,\) and must have \(\)", env.step, np.zeros(1, int))
    several = batched("CartPole-v1", 2)
    with pytest.raises(ResetNeeded, match="no episode"):
        several.step(np.zeros(2, int))
    several.reset(seed=2**40)
    wrong = {"reset_mask": np.zeros(2, bool)}
    refuses(
        r"reset_mask is bool \[2\] and must be bool \[2\] with one", several.reset, options=wrong
    )
    with pytest.raises(TypeError, match="render_mode='human': nothing is drawn"):
        gymnasium.make("jaxrl/CartPole-v1", render_mode="human")
    for name in [name for name in sys.modules if name.startswith("jaxrl.envs.gymnasium")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(envs, "gymnasium")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxrl\[gymnasium\]'"):
        envs.to_gymnasium("CartPole-v1")


@pytest.mark.slow
def test_stable_baselines3_learns_cartpole_of_ours():
    pytest.importorskip("stable_baselines3", reason="pip install 'jaxrl[sb3]'")
    torch = pytest.importorskip("torch")
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)  # its networks are too small to share
    env, other = (make_vec_env("jaxrl/CartPole-v1", n_envs=8, seed=seed) for seed in (0, 1000))
    options = dict(n_steps=128, batch_size=256, learning_rate=1e-3, gamma=0.98, gae_lambda=0.8)
    model = PPO("MlpPolicy", env, seed=0, device="cpu", **options)
    played = partial(evaluate_policy, env=other, n_eval_episodes=16, deterministic=False)
    before, _ = played(model)  # drawn from a policy that knows nothing, about 22
    after, _ = played(model.learn(8192))
    assert before < 30 < 90 < after
