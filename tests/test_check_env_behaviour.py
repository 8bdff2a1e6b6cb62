"""`check_env`: what an environment returns and how it behaves, each rule broken once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walk import Walk, WalkState, refuse

from jaxrl.check import check_env, cost, legal
from jaxrl.env import static, timestep
from jaxrl.spaces import Box, MultiDiscrete

EVENTS = []


class Edits(Walk):
    """Walk with its TimeStep, or that of its step alone, replaced."""

    in_reset: bool = static(True)

    def reset(self, key):
        state, ts = super().reset(key)
        return (state, self.edit(ts)) if self.in_reset else (state, ts)

    def step(self, state, action, key):
        state, ts = super().step(state, action, key)
        return state, self.edit(ts)

    def edit(self, ts):
        return ts


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("reward", 1.0, "reward is float32[] weak and must be float32[]"),
        ("reward", jnp.ones((), jnp.int32), "reward is int32[] and must be float32[]"),
        ("terminated", jnp.zeros(1, bool), "terminated is bool[1] and must be bool[]"),
        ("truncated", None, "truncated is 0 arrays and must be bool[]"),
    ],
)
def test_a_reward_or_flag_of_another_type_is_refused(field, value, found):
    class Typed(Edits):
        def edit(self, ts):
            return ts.replace(**{field: value})

    refuse(Typed(), "check_reward_and_flags", [found, "`jaxrl.env.timestep`"])


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"x": jnp.zeros(2)}, "metrics['x'] must be one scalar"),
        ({"x": {"y": jnp.zeros(())}}, "metrics['x'] must be one scalar"),
        ({"y": jnp.zeros(())}, "only one of them has ['x', 'y']"),
        ((), "metrics must be a dict"),
    ],
)
def test_metrics_that_are_no_flat_dict_of_the_same_scalars_are_refused(metrics, words):
    class Reports(Edits):
        def edit(self, ts):
            return ts.replace(metrics=metrics)

    refuse(Reports(in_reset=False), "check_metrics", [words])


def test_a_numpy_array_in_double_precision_is_refused_though_jit_hides_it():
    class Doubles(Walk):
        def reset(self, key):
            state, ts = super().reset(key)
            obs = np.zeros(2)
            return state, ts.replace(obs=obs, final_obs=obs)

    refuse(Doubles(), "check_no_float64", ["Doubles.reset: timestep.obs is float64", "jnp"])


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (jnp.zeros(3), "obs is float32[3] and observation_space says float32[2]"),
        (jnp.zeros(2, jnp.int32), "obs is int32[2] and observation_space says float32[2]"),
        ({"a": jnp.zeros(2)}, "make them the same"),
    ],
)
def test_an_observation_of_another_shape_than_its_space_is_refused(obs, words):
    class Sees(Edits):
        def edit(self, ts):
            return ts.replace(obs=obs)

    refuse(Sees(), "check_obs", [words])


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (0.0, "state.x is float32[] weak in Drifts.reset and float32[] in Drifts.step"),
        (jnp.zeros((), jnp.int32), "cast it in step with .astype('int32')"),
        (jnp.zeros(1), "keep its shape fixed"),
        (None, "state.x is missing in Drifts.reset"),
    ],
)
def test_a_state_that_changes_its_type_is_refused_with_both_types(start, words):
    class Drifts(Walk):
        def reset(self, key):
            state, ts = super().reset(key)
            return state.replace(x=start), ts

        def step(self, state, action, key):
            return super().step(state.replace(x=jnp.float32(1)), action, key)

    refuse(Drifts(), "check_stable", [words])


def test_a_reset_that_pays_is_refused():
    class Pays(Walk):
        def reset(self, key):
            state, ts = super().reset(key)
            return state, ts.replace(reward=ts.reward + 1)

    refuse(Pays(), "check_reset_flags", ["Pays.reset: reward is 1.0 and must be 0"])


def test_a_reset_that_is_over_is_refused():
    class Over(Walk):
        def reset(self, key):
            state, ts = super().reset(key)
            return state, ts.replace(terminated=state.x > 0.4)

    refuse(Over(), "check_reset_flags", ["terminated is True and must be False"])


class DictWalk(Walk):
    """Walk with a dict for its state."""

    def reset(self, key):
        state, ts = super().reset(key)
        return {"x": state.x, "t": state.t}, ts

    def step(self, state, action, key):
        new, ts = super().step(WalkState(**state), action, key)
        return self.write(state, new), ts

    def write(self, state, new):
        return {"x": new.x, "t": new.t}


def test_a_step_that_changes_the_state_it_was_given_is_refused():
    class Mutates(DictWalk):
        def write(self, state, new):
            state["x"], state["t"] = new.x, new.t
            return state

    refuse(Mutates(), "check_is_pure", ["changes the state it was given (state['t']", "{**state"])


def concrete(x):
    """False inside jit."""
    return not isinstance(x, jax.core.Tracer)


def test_a_step_that_remembers_is_refused():
    class Remembers(Walk):
        def step(self, state, action, key):
            if concrete(state.x):
                EVENTS.append(1)
            state, ts = super().step(state, action, key)
            return state, ts.replace(reward=ts.reward + (len(EVENTS) if concrete(state.x) else 0))

    refuse(Remembers(), "check_is_pure", ["Remembers.step gives another result", "timestep.reward"])


def test_a_step_that_differs_under_jit_is_refused():
    class Peeks(Walk):
        def step(self, state, action, key):
            state, ts = super().step(state, action, key)
            return state, ts.replace(reward=ts.reward + (2 if concrete(state.x) else 0))

    refuse(Peeks(), "check_jit_agrees", ["Peeks.step", "under jit (timestep.reward"])


def test_a_step_that_differs_under_vmap_is_refused():
    @jax.custom_batching.custom_vmap
    def pay(x):
        return x

    @pay.def_vmap
    def _(axis_size, in_batched, x):
        return x - jnp.mean(x), in_batched[0]

    class Averages(Walk):
        def step(self, state, action, key):
            state, ts = super().step(state, action, key)
            return state, ts.replace(reward=pay(ts.reward))

    refuse(Averages(), "check_vmap_agrees", ["under vmap (timestep.reward", "custom_vmap"])


def test_a_reset_that_reads_its_key_in_vain_is_refused():
    class Rounds(Walk):
        def reset(self, key):
            state, _ = super().reset(key)
            state = state.replace(x=jnp.floor(jnp.abs(state.x)))
            return state, self.look(state)

    refuse(Rounds(), "check_resets_differ", ["Rounds.reset reads its key", "`del key`"])


def test_a_reward_that_becomes_nan_is_refused():
    class Divides(Walk):
        def step(self, state, action, key):
            state, ts = super().step(state, action, key)
            return state, ts.replace(reward=jnp.log(0.9 - state.x))

    refuse(
        Divides(stride=0.4),
        "check_stays_finite",
        ["timestep.reward is NaN", "`return state, ts.replace(reward=jnp.log(0.9 - state.x))`"],
    )


def test_an_observation_outside_its_space_is_refused():
    class Wide(Walk):
        @property
        def observation_space(self):
            return Box(-0.6 * self.limit, 0.6 * self.limit, (2,))

    refuse(Wide(), "check_stays_in_space", ["Wide: obs has entries from", "widen the space"])


class Masked(Walk):
    """Walk that says which of its actions are legal, and takes no others."""

    @property
    def observation_space(self):
        return {"legal": Box(False, True, (3,), np.bool_), "x": super().observation_space}

    def step(self, state, action, key):
        legal = self.legal(state.x)
        state, ts = super().step(state, action, key)
        return state, ts.replace(reward=jnp.where(legal[action], ts.reward, jnp.nan))

    def look(self, state, reward=0.0, terminated=False):
        obs = {"legal": self.legal(state.x), "x": super().look(state).obs}
        return timestep(obs, reward, terminated)

    def legal(self, x):
        """No step away from the middle."""
        return jnp.stack([x > 0, jnp.asarray(True), x < 0])


def test_legal_actions_are_taken_where_the_observation_says_which(monkeypatch):
    monkeypatch.setattr(cost, "measure", lambda env, *_, **__: cost.describe(env))
    assert check_env(Masked(), num_steps=30, num_envs=4, verbose=False) == "Masked"


def test_a_random_action_of_several_choices_is_legal_in_each():
    class Pairs(Walk):
        @property
        def action_space(self):
            return MultiDiscrete((2, 3))

        @property
        def observation_space(self):
            return {"legal": Box(False, True, (5,), np.bool_)}

    obs = {"legal": jnp.asarray([False, True, True, False, True])}
    keys = jax.random.split(jax.random.key(0), 32)
    drawn = jax.vmap(lambda key: legal.random_action(Pairs(), obs, key))(keys)
    assert {tuple(row) for row in drawn.tolist()} == {(1, 0), (1, 2)}
    assert legal.allows_one(Pairs(), obs)
    assert not legal.allows_one(Pairs(), {"legal": jnp.asarray([True, True, False, False, False])})


def test_a_mask_that_allows_nothing_or_has_another_size_is_refused():
    class Stuck(Masked):
        def legal(self, x):
            return super().legal(x) & (jnp.abs(x) < 0.45)

    class Short(Masked):
        @property
        def action_space(self):
            return MultiDiscrete((2, 3))

    refuse(Stuck(), "check_legal_allows_one", ["obs['legal'] allows no action after"])
    refuse(Short(), "check_legal_space", ["it must be Box(False, True, (5,), bool)"])


def test_an_environment_with_an_auto_reset_inside_is_refused():
    class Restarts(Walk):
        def step(self, state, action, key):
            step_key, reset_key = jax.random.split(key)
            state, ts = super().step(state, action, step_key)
            fresh, first = self.reset(reset_key)
            state = jax.tree.map(lambda a, b: jnp.where(ts.done, a, b), fresh, state)
            return state, self.end(ts, jnp.where(ts.done, first.obs, ts.obs))

        def end(self, ts, obs):
            return ts.replace(obs=obs)

    class Hides(Restarts):
        def end(self, ts, obs):
            return ts.replace(obs=obs, final_obs=obs)

    refuse(Restarts(), "check_does_not_reset_itself", ["final_obs is not obs", "VecEnv"])
    refuse(Hides(), "check_does_not_reset_itself", ["starts a new episode by itself"])


def test_a_state_drawn_anew_at_every_step_is_not_taken_for_a_restart(monkeypatch):
    class Fresh(Walk):
        def step(self, state, action, key):
            state, _ = self.reset(key)
            return state, self.look(state, terminated=state.x > 0.4)

    monkeypatch.setattr(cost, "measure", lambda env, *_, **__: cost.describe(env))
    assert check_env(Fresh(), num_steps=30, num_envs=4, verbose=False) == "Fresh"
