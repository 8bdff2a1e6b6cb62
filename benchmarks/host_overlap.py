"""How much of a slow host two halves that take turns hide: `python -m benchmarks.host_overlap`.

A world that takes 50 ms a turn is played by a random model, first half after half, then with
the halves taking turns, then with a host that answers at once; medians of five. One JSON line.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from jaxrl import envs
from jaxrl.algos import grpo
from jaxrl.lm.host.player import Host, take_turns
from jaxrl.lm.host.speaker import Parts, Speaker, jitted, play
from jaxrl.lm.host.worlds import Place
from jaxrl.lm.learn.agent import Agent
from jaxrl.lm.model.config import preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.lm.play.limits import limits
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text import ByteTokenizer, make_chat

PROMPTS, GROUP, TURNS, RESPONSE, WORKERS, REPEATS = 16, 2, 4, 64, 16, 5
WORLD = """
import os, time

class Slow:
    def reset(self, seed=None):
        return "?", {}

    def step(self, action):
        time.sleep(float(os.environ["SLEEP"]))
        return "!", 0.0, False, False, {}
"""


def main(sleep: float = 0.05) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slow_world.py").write_text(WORLD)
        sys.path.insert(0, folder)
        env = envs.make("slow_world:Slow").replace(turns=TURNS, answer_bytes=8)
        chat = make_chat(ByteTokenizer())
        sizes = limits(env, chat, response=RESPONSE)
        model = replace(preset("nano", 260), context=sizes.context)
        policy = Transformer(model, nnx.Rngs(params=jax.random.key(0)))
        cfg = grpo.Config(num_prompts=PROMPTS, group_size=GROUP, micro_batch=2, refill_at=1.0)
        who = Speaker(policy, jax.random.key_data(jax.random.key(1)), cfg, env)
        parts = jitted(Parts(Agent(env, chat, sizes, model), GROUP, PROMPTS * GROUP // 2))
        halves = np.split(np.arange(PROMPTS, dtype=np.int32), 2)

        def timed(seconds: float, in_turn: bool, iteration: int) -> float:
            os.environ["SLEEP"] = str(seconds)
            how = {"workers": WORKERS, "deadline": 30.0, "say": print}
            write = Transcriber(chat.tokenizer, GROUP)
            host = Host(env, [], [], lambda state: (None, {}), write, **how)
            place = Place(0, iteration, 1)
            for index in (halves[0], halves[1]):  # compiled, and every process started
                take_turns([play(parts, host, who, index, GROUP, place, {})])
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                playing = [play(parts, host, who, index, GROUP, place, {}) for index in halves]
                for some in [playing] if in_turn else [[half] for half in playing]:
                    take_turns(some)
                times.append(time.perf_counter() - start)
            host.close()
            return round(statistics.median(times), 3)

        found = {
            "one_after_the_other_s": timed(sleep, False, 0),
            "in_turn_s": timed(sleep, True, 0),
            "no_sleep_s": timed(0.0, True, 0),
        }
    told = {"sleep_s": sleep, "episodes": PROMPTS * GROUP, "turns": TURNS, "workers": WORKERS}
    machine = {"cores": os.cpu_count(), "load_1min": round(os.getloadavg()[0], 2)}
    print(json.dumps({"program": "host_overlap"} | told | found | {"machine": machine}))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
