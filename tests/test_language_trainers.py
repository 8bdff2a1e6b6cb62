"""What the trainers of language agents hand to the host loop, and what they leave behind."""

import json
from dataclasses import asdict
from pathlib import Path

import agents
import jax
import numpy as np
import pytest

from jaxrl.language import ANSWER
from jaxrl.lm import folders
from jaxrl.mesh import make_mesh
from jaxrl.policy import named_leaves
from jaxrl.program import make_program, members
from train import dpo, evaluate, grpo, kto, reinforce, reward_model, sft, turn_ppo

GAME = {"env_args": ("turns=1",), "model": "nano"}
OWN = {"success", "no_answer", "wrong_form"}
TRAINERS = [
    dpo.TRAINER,
    reward_model.TRAINER,
    kto.TRAINER,
    grpo.TRAINER,
    reinforce.TRAINER,
    sft.TRAINER,
    turn_ppo.TRAINER,
]


@pytest.mark.parametrize("trainer", TRAINERS, ids=[trainer.name for trainer in TRAINERS])
def test_a_trainer_sets_up_a_task_whose_state_is_laid_out_and_whose_steps_are_episodes(trainer):
    assert trainer.presets["default"] == trainer.options().algo
    cfg = trainer.presets["default"]
    task = trainer.setup(trainer.options(**GAME))
    assert (task.unit, task.warm_up, task.steps_per_iteration) == ("episodes", 0, cfg.episodes)
    assert task.steps(task.num_iterations) >= cfg.total_episodes
    assert task.num_blocks == cfg.num_blocks and task.refuse is not None
    state = jax.eval_shape(lambda key: task.init(key, _one(task), axis=None), jax.random.key(0))
    assert task.shown(state).metrics.keys() == OWN | {ANSWER}


def test_who_masks_what_was_not_read_is_not_stopped():
    algo = grpo.PRESETS["default"].__class__(unread="mask")
    assert grpo.TRAINER.setup(grpo.Args(**GAME, algo=algo)).refuse is None


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict]:
    """(the folder of two fresh seeds as the host loop would leave it, their evaluation)"""
    folder = tmp_path_factory.mktemp("run")
    args = grpo.Args(**GAME, num_seeds=2)
    task = grpo.TRAINER.setup(args)
    of = members([5, 6], task.cfg, task.env)
    mesh = make_mesh(2, jax.devices()[:1])
    program = make_program(task.init, task.update, task.layout, mesh, one_by_one=True)
    trained = jax.tree.map(np.asarray, task.outcome.trained(program.init(program.place(of))))
    task.outcome.save(folder, trained)
    return folder, task.outcome.evaluate(trained, of, 8)


def test_every_metric_of_the_environment_is_evaluated(run):
    final = run[1]
    assert final["metrics"].keys() == OWN | {"turns", "cut_responses"}
    assert final["metrics"]["turns"] == {"mean": 1.0, "per_seed": [1.0, 1.0]}
    assert len(final["per_seed"]) == 2


def test_a_finished_run_is_evaluated_again_as_it_was_at_its_end(run):
    folder, final = run
    args = grpo.Args(**GAME, num_seeds=2)
    options = json.loads(json.dumps(asdict(args), default=str))
    (folder / "config.json").write_text(json.dumps({"trainer": "grpo", "options": options}))
    assert evaluate.main(evaluate.Args(run=folder, episodes=8, seed=5)) == final


def test_a_run_starts_from_the_first_seed_of_another(run):
    tokenizer, cfg, weights = folders.start("nano", run[0], None, "", "", "float32")
    _, kept = folders.load_models(run[0])
    for name, x in named_leaves(weights).items():
        np.testing.assert_array_equal(x, named_leaves(kept)[name][0])
    assert cfg.width == 64 and tokenizer.chat.end_of_turn == agents.CHAT.end_of_turn
    task = sft.TRAINER.setup(sft.Args(**GAME, init_from=run[0]))
    state = jax.tree.map(lambda x: x[None], task.init(jax.random.key(9), _one(task), axis=None))
    filled = task.start(state)
    np.testing.assert_array_equal(filled.params.policy.embed[...][0], weights.embed[...])


def test_a_model_that_knows_words_is_asked_in_words_and_a_run_as_it_was(run, tmp_path):
    """What follows from the model is in the options before the run folder is written."""
    complete = grpo.TRAINER.complete
    assert complete(grpo.Args()) == grpo.Args()
    for model in (str(tmp_path), "./not-there"):
        (tmp_path / "model.safetensors").touch()
        words = complete(grpo.Args(model=model, env_args=("turns=1",)))
        assert words.env_args == ("turns=1", "prompt=instruct") and complete(words) == words
        given = grpo.Args(model=model, env_args=("prompt=terse",))
        assert complete(given) == given
    chats, words = sft.Args(data=tmp_path / "chats.jsonl"), ("prompt=instruct",)
    for args, asked in ((grpo.Args(), ()), (grpo.Args(env_args=words), words), (chats, words)):
        options = json.loads(json.dumps(asdict(args), default=str))
        (run[0] / "config.json").write_text(json.dumps({"trainer": "grpo", "options": options}))
        assert complete(grpo.Args(init_from=run[0])).env_args == asked


def _one(task):
    return jax.tree.map(lambda x: x[0], members([0], task.cfg, task.env))
