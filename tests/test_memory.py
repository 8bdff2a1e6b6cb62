"""Estimates of memory: lower bounds by hand, and a refusal with a size that is small enough."""

from dataclasses import replace
from functools import partial

import jax
import pytest
from walk import Walk

from jaxrl import memory
from jaxrl.algos import grpo, ppo
from jaxrl.lm.learn.sizes import activations
from jaxrl.lm.model.config import preset
from jaxrl.lm.play.limits import Limits
from jaxrl.memory import GIB, Part
from jaxrl.program import members
from jaxrl.train import aot, command, devices, flags, loop, table
from jaxrl.wrappers import TimeLimit


class Device:
    """An accelerator of 8 GiB."""

    platform, process_index = "gpu", 0

    def memory_stats(self):
        return {"bytes_limit": 8 * GIB}


def said(parts, num_members=1, devices=1) -> str:
    with pytest.raises(ValueError) as error:
        memory.check(parts, num_members, [Device()] * devices)
    return str(error.value)


SPLIT, WHOLE = Part("num_envs", 1024, 32 * GIB), Part("hidden", 4096, 6 * GIB, split=False)


@pytest.mark.parametrize(
    ("parts", "num_members", "devices", "words"),
    [
        ([SPLIT], 1, 1, "num_envs=1024 needs at least 32 GiB of the 32 GiB that this run takes, "),
        ([SPLIT], 1, 1, "and this device has 8 GiB; try num_envs=256."),
        ([SPLIT], 1, 2, "16 GiB that this run takes, and 2 gpu device(s) has 8 GiB each; try num"),
        ([WHOLE, SPLIT], 1, 8, "hidden=4096 needs at least 6 GiB of the 10 GiB that this run"),
        ([WHOLE], 3, 2, "num_seeds=3 needs at least 12 GiB of the 12 GiB that this run takes"),
        ([replace(WHOLE, size=9 * GIB, example="nano")], 1, 1, "try hidden=nano."),
        ([SPLIT, replace(WHOLE, size=9 * GIB)], 1, 1, "try num_envs=1."),
    ],
)
def test_what_does_not_fit_is_refused_with_its_largest_part(parts, num_members, devices, words):
    assert words in said(parts, num_members, devices)


def test_what_fits_passes_and_the_value_that_is_proposed_fits():
    memory.check([SPLIT], 1, [Device()] * 4)
    memory.check([WHOLE], 2, [Device()] * 2)
    memory.check([replace(WHOLE, in_turn=True)], 99, [Device()])
    proposed = int(said([SPLIT, WHOLE]).split("num_envs=")[-1].rstrip("."))
    smaller = replace(SPLIT, value=proposed, size=SPLIT.size * proposed // SPLIT.value)
    memory.check([smaller, WHOLE], 1, [Device()])


def test_a_device_that_says_nothing_refuses_nothing(monkeypatch):
    monkeypatch.setattr(Device, "memory_stats", lambda self: None)
    memory.check([replace(SPLIT, size=10**15)], 1, [Device()])


def test_the_machine_has_what_its_control_groups_leave(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "memory/c").mkdir(parents=True)
    (tmp_path / "self").write_text("0::/a/b\n4:memory:/c\n")
    (tmp_path / "a/b/memory.max").write_text("max\n")
    (tmp_path / "a/memory.max").write_text("5000\n")
    (tmp_path / "memory/c/memory.limit_in_bytes").write_text("7000\n")
    found = memory._of_cgroups(tmp_path, str(tmp_path / "self"))
    assert sorted(found) == [5000, 7000]
    assert memory._of_cgroups(tmp_path / "none", str(tmp_path / "none")) == []
    monkeypatch.setattr(memory, "_of_cgroups", lambda: found)
    monkeypatch.setattr(memory, "_physical", lambda: (6000, 100))
    assert memory.of_machine() == 5100
    assert memory.of_device(jax.devices()[0]) == 5100


def test_the_parts_of_rollouts_are_those_counted_by_hand():
    """An observation of Walk is 1 float, an action 1 int, a state 1 float, a clock and two sums."""
    cfg = ppo.Config(num_envs=8, num_steps=4, num_minibatches=1, num_epochs=3, hidden=(16,))
    env = ppo.wrap(TimeLimit(Walk(), 5), cfg)
    state, obs = memory.of_environment(env)
    parts = memory.of_rollouts(cfg, env, partial(ppo.init, cfg=cfg, env=env))
    sizes = {(part.option, part.size) for part in parts[:4]}
    assert sizes == {
        ("num_envs", 8 * state),
        ("num_envs", 32 * (2 * obs + 4 + 8)),
        ("num_envs", 8 * state * 2),
        ("num_epochs", 3 * 32 * 4),
    }
    assert parts[4].option == "hidden" and not parts[4].split


def test_an_estimate_is_below_what_the_compiled_program_takes():
    argv = ["--num-envs", "256", "--algo.num-steps", "8", "--algo.num-epochs", "2"]
    trainer = table.trainer("ppo")
    args = flags.parse(trainer, flags.full_names([*argv, "--algo.hidden", "8"]))
    task = trainer.setup(args)
    mesh = devices.choose(1, 1, task.num_blocks, task.minibatch_rows)
    program = loop.program_of(task, mesh)
    taken = program.run.lower(*program.abstract(members([0], task.cfg, task.env))).compile()
    estimate = sum(part.on_device(1, 1) for part in task.parts)
    assert 0.2 < estimate / aot.memory(taken)["total"] < 1.0


@pytest.fixture
def small(monkeypatch):
    """A machine of 2 MiB, on which no program is made."""

    def never(*args, **kwargs):
        raise AssertionError("a program was made")

    monkeypatch.setattr(loop, "make_program", never)
    monkeypatch.setattr(memory, "of_machine", lambda: 2**21)


@pytest.mark.parametrize(
    ("trainer", "argv", "words"),
    [
        ("ppo", ("--num-envs", "16384"), "num_envs=16384 needs at least"),
        ("ppo", ("--algo.num-epochs", "512"), "num_epochs=512 needs at least"),
        ("ppo", ("--algo.hidden", "512", "512"), "hidden=512 needs at least"),
        ("ppo", ("--algo.reset-pool", "9999"), "reset_pool=9999 needs at least"),
        ("ppo", ("--num-seeds", "50"), "num_seeds=50 needs at least"),
        ("ppo", ("--eval-episodes", "100000"), "eval_episodes=100000 needs at least"),
        ("pqn", ("--algo.num-steps", "16384"), "num_steps=16384 needs at least"),
        ("grpo", (), "num_lanes=256 needs at least"),
        ("grpo", ("--algo.context", "9000"), "this device has 0.00195 GiB; try context=0."),
        ("sft", ("--model", "base"), "this device has 0.00195 GiB; try model=nano."),
        ("sft", ("--lora-rank", "4096"), "lora_rank=4096 needs at least"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_anything_is_traced_or_written(
    small, tmp_path, capfd, trainer, argv, words
):
    with pytest.raises(SystemExit) as stop:
        command.run(trainer, [*argv, "--run-dir", str(tmp_path / "run")])
    err = capfd.readouterr().err
    assert stop.value.code == 2 and words in err and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


def test_a_context_that_is_given_is_what_makes_a_language_agents_parts_large():
    trainer = table.trainer("grpo")
    options = {}
    for argv in ([], ["--algo.context", "400"]):
        task = trainer.setup(flags.parse(trainer, argv))
        options[len(argv)] = {part.option for part in task.parts}
    assert options == {
        0: {"model", "num_prompts", "micro_batch", "num_lanes"},
        2: {"model", "context"},
    }


def test_a_long_prompt_that_a_group_shares_is_counted_once_unless_it_is_imitated():
    sizes = Limits(first=2048, response=64, following=8, max_turns=1, context=2112)
    cfg = grpo.Config(num_prompts=1, group_size=8, micro_batch=8, remat=True)
    model = preset("nano", 260)
    row = model.num_layers * model.width * 4
    shared, alone = (
        activations(model, cfg, sizes),
        activations(model, replace(cfg, sft_steps=1), sizes),
    )
    read = 2048 + 8 * 64
    scores = model.num_heads * 4 * (2048**2 + 8 * 64 * 2112)
    assert shared == row * read + scores + 8 * 64 * 260 * 4
    assert alone > 5 * shared
