"""What an iteration costs beside its parts: `taskset -c 0 python benchmarks/parts.py --out FILE`.

For each learner with its default options, one seed on one core: the whole iteration; play (the
environment and the network that acts); sampling of the replay; gradient steps over and over on the
same rows. The rest is what holds them together: writing rows, advantages, shuffles, metrics.
Seconds are the process's own, so that other work on the machine counts less; with a second core its
threads that wait would count too.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import envs
from benchmarks.record import machine, versions
from jaxrl import distributions, on_policy, replay, resets, sgd
from jaxrl.algos import a2c, dqn, ppo, pqn, sac, td3
from jaxrl.env import per_env_keys
from jaxrl.networks import q_network
from jaxrl.program import ONE_CORE
from jaxrl.rollout import rollout

REPEATS, KEY = 5, jax.random.key(0)
ENVS = {"sac": "Pendulum-v1", "td3": "Pendulum-v1"}  # others: CartPole-v1
Part = Callable[[Any, jax.Array], Any]  # (state, key) -> anything that depends on all of the work


def over(count: int, part: Part, state: Any, key: jax.Array) -> jax.Array:
    """The part `count` times, each with a key of its own."""

    def one(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        leaves = jax.tree.leaves(part(state, key))
        return total + sum(jnp.sum(x.astype(jnp.float32)) for x in leaves), None

    return jax.lax.scan(one, jnp.zeros(()), jax.random.split(key, count))[0]


def seconds(f: Callable, state: Any, iterations: int) -> float:
    """The least seconds of the process for one of `iterations` repetitions."""
    program = jax.jit(partial(over, iterations, f)).lower(state, KEY).compile(ONE_CORE)
    best = np.inf
    for _ in range(REPEATS):
        began = process_time()
        jax.block_until_ready(program(state, KEY))
        best = min(best, process_time() - began)
    return best / iterations


def of_replay(name: str, cfg: Any, env: Any, state: Any) -> dict[str, tuple[int, Part]]:
    """Rounds of play, batches drawn, gradient steps."""
    algorithm = {"dqn": dqn, "sac": sac, "td3": td3}[name]
    index = jnp.arange(cfg.num_envs)
    if name == "dqn":
        player, noise = partial(dqn.act, state.network, 0.1), q_network.draw_noise
    else:
        noise = partial(distributions.noise, env.action_space)
        std = {"std": cfg.exploration_noise} if name == "td3" else {}
        player = partial(algorithm.act, state.learner, jnp.asarray(True), **std)
    of_row = partial(sac.noise_of_row, env.action_space) if name == "sac" else noise
    carry = state.play[0] if name == "td3" else state.carry

    def play(carry: Any, key: jax.Array) -> Any:
        pool = resets.fill_all(
            env, key, index, max(1, resets.pool_size(cfg, env) // cfg.num_rounds)
        )
        return rollout(env, carry, pool, player, noise, key, index, cfg.train_every)[::2]

    def draw(buffer: Any, key: jax.Array) -> Any:
        if name == "dqn":
            where = replay.draw(buffer, key, cfg.batch_size, None, cfg.n_step)
            return replay.take(buffer.rows, where)
        rows, _ = replay.sample(buffer, key, cfg.batch_size, None)
        return rows, jax.vmap(lambda k: of_row(k, ()))(
            per_env_keys(key, jnp.arange(cfg.batch_size))
        )

    steps = cfg.num_rounds * cfg.gradient_steps
    return {
        "play": (cfg.num_rounds, lambda state, key: play(carry, key)),
        "sampling": (steps, lambda state, key: draw(state.buffer, key)),
        "gradient steps": (1, partial(gradient_steps, name, cfg, env, draw, steps)),
    }


def gradient_steps(
    name: str, cfg: Any, env: Any, draw: Callable, count: int, state: Any, key: jax.Array
) -> Any:
    """One after the other on rows that are drawn once."""
    if name == "dqn":
        where = replay.draw(state.buffer, key, cfg.batch_size, None, cfg.n_step)
        weight = jnp.ones(cfg.batch_size)

        def one(learner: Any, _: None) -> tuple[Any, None]:
            batch = dqn.prepare(learner, state.buffer, where, weight, cfg)
            grads, _ = sgd.gradient(dqn.loss, learner.network, batch)
            return dqn.descend(learner, grads, cfg.learning_rate, cfg), None
    else:
        goal = {"goal": sac.entropy_target(cfg, env.action_space)} if name == "sac" else {}
        step = partial({"sac": sac, "td3": td3}[name].gradient_step, cfg=cfg, axis=None, **goal)
        batch = draw(state.buffer, key)

        def one(learner: Any, _: None) -> tuple[Any, None]:
            return step(learner, batch)[0], None

    return jax.lax.scan(one, state.learner, None, length=count)[0]


def of_rollouts(name: str, cfg: Any, env: Any, state: Any) -> dict[str, tuple[int, Part]]:
    """A rollout; gradients of its first minibatch, as many as an iteration has."""
    index = jnp.arange(cfg.num_envs)

    def play(state: Any, key: jax.Array) -> Any:
        if name != "pqn":
            return on_policy.play(state, key, jax.random.fold_in(key, 1), cfg=cfg, env=env)
        pool = resets.fill_all(env, key, index, resets.pool_size(cfg, env))
        player = partial(pqn.act, state.network, 0.1)
        draw = q_network.draw_noise
        return rollout(env, state.carry, pool, player, draw, key, index, cfg.num_steps)[::2]

    loss, direction = {
        "ppo": (partial(ppo.loss, cfg=cfg), ppo.optimizer),
        "a2c": (partial(a2c.loss, cfg=cfg), a2c.direction),
        "pqn": (pqn.loss, pqn.direction),
    }[name]
    count = getattr(cfg, "num_epochs", 1) * getattr(cfg, "num_minibatches", 1)

    def learn(state: Any, key: jax.Array) -> Any:
        network = state.network if name == "pqn" else state.policy
        played = play(state, key)
        steps = played[1]
        rows = (
            pqn.prepare(network, steps, cfg)
            if name == "pqn"
            else on_policy.prepare(state, steps, cfg)
        )
        size = cfg.num_envs * cfg.num_steps // getattr(cfg, "num_minibatches", 1)
        rows = jax.tree.map(lambda x: x[:size], rows)

        def one(before: Any, _: None) -> tuple[Any, None]:
            grads, _ = sgd.gradient(loss, before[1], rows)
            descended = sgd.descend(direction(cfg), grads, before[0], before[1], cfg.learning_rate)
            return descended[::-1], None

        return jax.lax.scan(one, (state.opt_state, network), None, length=count)[0]

    return {"play": (1, play), "play and gradient steps": (1, learn)}


def learner(name: str, algorithm: Any) -> dict[str, Any]:
    """Microseconds of an environment step: the whole, and each part."""
    cfg = replace(algorithm.Config(), total_steps=1_000_000_000)
    env = algorithm.wrap(envs.make(ENVS.get(name, "CartPole-v1")), cfg)
    state = jax.jit(partial(algorithm.init, cfg=cfg, env=env))(KEY)
    with_replay = name in ("dqn", "sac", "td3")
    if with_replay:
        filled = (buffer := state.buffer).replace(count=jnp.asarray(5000, jnp.int32))
        state = jax.tree.map(
            lambda x: filled if x is buffer else x, state, is_leaf=lambda x: x is buffer
        )
    steps = cfg.num_envs * cfg.num_steps
    iterations = max(1, 8192 // steps)

    def whole(count: int) -> float:
        def run(state: Any, key: jax.Array) -> Any:
            def one(state: Any, key: jax.Array) -> tuple[Any, None]:
                return algorithm.update(state, key, cfg=cfg, env=env)[0], None

            return jax.lax.scan(one, state, jax.random.split(key, count))[0]

        return seconds(run, state, 1) / count

    parts = (of_replay if with_replay else of_rollouts)(name, cfg, env, state)
    micro = {k: seconds(f, state, n * iterations) * n * 1e6 / steps for k, (n, f) in parts.items()}
    all_of_it = whole(iterations) * 1e6 / steps
    if (both := micro.pop("play and gradient steps", None)) is not None:
        micro["gradient steps"] = both - micro["play"]
    record = {
        "benchmark": "parts",
        "trainer": name,
        "microseconds_a_step": {"whole": all_of_it, **micro},
        "ratio": all_of_it / sum(micro.values()),
    }
    print(json.dumps(record), flush=True)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = {"ppo": ppo, "a2c": a2c, "pqn": pqn, "dqn": dqn, "sac": sac, "td3": td3}
    parser.add_argument("--only", nargs="*", choices=every, default=list(every))
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    args = parser.parse_args()
    where = {"machine": machine("cpu"), "versions": versions("jax", "jaxlib", "flax")}
    for name in args.only:
        record = learner(name, every[name])
        with args.out.open("a") as out:
            out.write(json.dumps(record | where) + "\n")


if __name__ == "__main__":
    main()
