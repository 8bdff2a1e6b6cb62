"""Rewards in Python: what they see, what becomes of it, and of those that fail."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import agents
import jax
import numpy as np
import pytest

import envs
from jaxrl.algos import grpo
from jaxrl.lm.host import Host
from jaxrl.lm.host.answers import Answers
from jaxrl.lm.host.program import HostProgram
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.metrics import quotient
from jaxrl.program import members
from train.host_language import rows_of

MODULE = """
import re, time, os

def exact(completions, answer, **kwargs):
    found = []
    for text, right in zip(completions, answer, strict=True):
        boxed = re.findall(r"#### *(-?[0-9]+)", text)
        found.append(1.0 if boxed and int(boxed[-1]) == int(right) else -0.1)
    return found

def letters(prompts, completions, completion_ids, id, trainer_state, log_metric):
    assert all(len(x) == len(prompts) for x in (completions, completion_ids, id))
    log_metric("shortest", min(map(len, completion_ids)))
    return [sum(map(str.isalpha, text)) / 8 for text in completions]

def sometimes(id, completions, **kwargs):
    if id[0] == 3:
        raise RuntimeError(f"no server for {id[0]}")
    return [None if id[0] == 5 else 2.0 * i for i in range(len(completions))]

def counted(completions, **kwargs):
    with open(os.environ["COUNT"], "a") as file:
        file.write("x")
    return [float(len(text)) for text in completions]

def always(**kwargs):
    raise KeyError("nothing")

def few(completions, **kwargs):
    return [1.0]

def slow(id, completions, **kwargs):
    if id[0] == 3:
        time.sleep(60)
    return [1.0 * i for i in range(len(completions))]

def dies(id, completions, **kwargs):
    if id[0] == 3:
        os._exit(7)
    return [1.0 * i for i in range(len(completions))]
"""
SIZES = {"num_prompts": 4, "group_size": 2, "num_lanes": 4, "micro_batch": 2, "sft_episodes": 4}
CFG = grpo.Config(**SIZES, total_episodes=24, response_tokens=8, num_minibatches=2)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An agent in a list of sums, and a module `mine_to_try` of rewards."""
    (tmp_path / "mine_to_try.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    rows = [{"question": f"{i}+{i}=", "answer": 2 * i, "id": i} for i in range(8)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = envs.make("dataset", data=str(path), split="all")
    return replace(agents.agent(env), num_shown=2)
