"""The three stages as one command, a reward model as a judge, and the best of n samples."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl import statistics
from jaxrl.algos import reward_model, token_ppo
from jaxrl.lm import folders
from jaxrl.policy import named_leaves
from jaxrl.program import members
from train import command, judge, loop, rlhf
from train import reward_model as train_reward_model
from train import token_ppo as train_token_ppo
from train.run_folder import run_options
from train.stop import Interrupted

ROOT = Path(__file__).parent.parent
GAME: dict[str, Any] = {
    "env": "reasoning/chain_sum",
    "env_args": ("max_terms=2", "max_digits=1", "digits=1"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The folder of a run of `train.reward_model` of two seeds, whose head is 1 everywhere."""
    folder = tmp_path_factory.mktemp("rm") / "run"
    algo = reward_model.Config(sft_steps=3, response_tokens=20)
    args = train_reward_model.Args(**GAME, num_seeds=2, run_dir=folder, algo=algo)
    task = train_reward_model.TRAINER.setup(args)
    one = jax.tree.map(lambda x: x[0], members([0], task.cfg, task.env))
    state = task.init(jax.random.key(0), one, axis=None)
    state = jax.tree.map(lambda x: np.stack([x, x]), state)
    params, reference = task.outcome.trained(state)
    critic = jax.tree.map(np.ones_like, params.critic)
    folder.mkdir()
    task.outcome.save(folder, (params.replace(critic=critic), reference))
    config = {"trainer": "reward_model", "options": run_options(args)}
    (folder / "config.json").write_text(json.dumps(config))
    known = {"reward_mean": {"per_seed": [3.0, 9.0]}, "reward_std": {"per_seed": [2.0, 9.0]}}
    (folder / "summary.json").write_text(json.dumps({"final_return": {"metrics": known}}))
    return folder


@pytest.fixture
def copied(kept, tmp_path) -> Path:
    return shutil.copytree(kept, tmp_path / "run")


def asked(folder: Path, **options: Any) -> Any:
    return train_token_ppo.TRAINER.complete(train_token_ppo.Args(reward_model=folder, **options))


def test_what_is_not_given_is_as_the_reward_models_run_had_it(kept):
    args = asked(kept)
    assert (args.env, args.env_args) == (GAME["env"], GAME["env_args"])
    assert (args.algo.sft_steps, args.algo.response_tokens, args.run_dir) == (3, 20, None)
    args = asked(kept, env="reasoning/countdown", algo=token_ppo.Config(sft_steps=5))
    assert (args.env, args.algo.sft_steps) == ("reasoning/countdown", 5)


def test_a_reward_model_judges_with_its_first_seed_and_scores_of_mean_0_and_deviation_1(kept):
    task = train_token_ppo.TRAINER.setup(asked(kept))
    one = jax.tree.map(lambda x: x[0], members([0], task.cfg, task.env))
    state = jax.tree.map(
        lambda x: x[None], jax.jit(lambda: task.init(jax.random.key(1), one, axis=None))()
    )
    assert task.start is not None and state.reference.critic is None
    filled = task.start(state)
    head = filled.judge.critic
    np.testing.assert_allclose(head.weight[0], 0.5)
    np.testing.assert_allclose(head.bias[0], (1 - 3) / 2)
    trunk = named_leaves(folders.load_models(kept)[1])
    for name, x in named_leaves(filled.judge.policy).items():
        np.testing.assert_array_equal(x[0], trunk[name][0])
    jax.tree.map(np.testing.assert_array_equal, filled.params.critic, filled.judge)


def broken(folder: Path, how: str) -> None:
    policy, config = folder / "policy", folder / "config.json"
    if how == "another trainer":
        config.write_text(config.read_text().replace('"reward_model"', '"sft"', 1))
    elif how in ("summary.json", "policy/head.npz", "config.json"):
        (folder / how).unlink()
    elif how == "no scale":
        (folder / "summary.json").write_text('{"final_return": {"metrics": {}}}')
    elif how == "no spread":
        text = (folder / "summary.json").read_text().replace("2.0", "0.0")
        (folder / "summary.json").write_text(text)
    elif how == "another width":
        np.savez(
            policy / "head.npz",
            **{".weight": np.ones((2, 3), np.float32), ".bias": np.ones(2, np.float32)},
        )
    elif how == "damaged":
        (policy / "head.npz").write_bytes(b"PK")


REFUSED = {
    "another trainer": "was made by train.sft and judges nothing; give the folder of a run of",
    "config.json": "holds no config.json: give the folder of a run",
    "summary.json": "has no summary.json, so it is not finished; go on with python -m",
    "policy/head.npz": "has no policy/head.npz, so it is not finished",
    "no scale": "summary.json tells no reward_mean and reward_std; train that run again.",
    "no spread": "this reward model tells no responses apart; train it longer",
    "another width": "does not fit this program: .weight is float32[2, 3], not float32[2, 64]",
    "damaged": "head.npz is damaged",
}


@pytest.fixture
def refused(monkeypatch, capfd):
    """Runs a command line that must be refused before anything is traced; what it said."""

    def never(*args, **kwargs):
        raise AssertionError("a program was made")

    monkeypatch.setattr(loop, "make_program", never)

    def run(run: Any, *argv: object) -> str:
        with pytest.raises(SystemExit) as stop:
            run([str(word) for word in argv])
        err = capfd.readouterr().err.removeprefix(
            "a reward model judges: train.token_ppo takes over\n"
        )
        assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
        return err

    return run


def of(trainer: str) -> Any:
    return lambda argv: command.run(trainer, argv)


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_reward_model_is_refused_in_one_line_and_nothing_is_written(
    how, copied, refused, tmp_path
):
    broken(copied, how)
    words = refused(of("ppo"), "--reward-model", copied, "--run-dir", tmp_path / "new")
    assert REFUSED[how] in words and str(copied) in words
    assert not (tmp_path / "new").exists()


def test_a_reward_model_of_other_tokens_or_shorter_conversations_is_refused(
    kept, refused, tmp_path
):
    tokens = ROOT / "benchmarks/results/learning/tokenizers/qwen2.json"
    cases = [
        (("--tokenizer", tokens), "reads another tokenizer, of 260 tokens, than the agent's of"),
        (("--env-args", "max_terms=4"), "was made for conversations of"),
        (("--reward", "math:sqrt"), "--reward meets Python; leave one of them out"),
    ]
    for flags_, words in cases:
        assert words in refused(of("ppo"), "--reward-model", kept, *flags_), flags_
    brief, other = folders.chat_tokenizer(None), folders.chat_tokenizer(None)
    words = replace(brief.chat.words, strips=True)
    other = replace(other, chat=other.chat.replace(words=words))
    judge.check_form("reward_model=x", brief, brief)
    with pytest.raises(ValueError, match="reward_model=x reads conversations in another form"):
        judge.check_form("reward_model=x", brief, other)
    assert "reward_model=None: give the folder" in refused(of("token_ppo"))
    assert "reward_model=" in refused(of("turn_ppo"), "--reward-model", tmp_path / "nowhere")


def test_the_best_of_k_samples_is_the_mean_over_all_choices_of_k():
    rng = np.random.default_rng(0)
    score, worth = rng.normal(size=(2, 3, 6))
    for k in (1, 2, 4, 6):
        best = [
            worth[row, list(c)][score[row, list(c)].argmax()]
            for row in range(3)
            for c in combinations(range(6), k)
        ]
        assert statistics.best_of(score, worth, k) == pytest.approx(np.mean(best))
    assert statistics.best_of(score, score, 6) == pytest.approx(score.max(1).mean())


LINES = [
    {"iteration": i, "episode_kl": x, "score": x, "episode_return": x * (2 - x)}
    for i, x in enumerate(np.linspace(0, 2, 41).tolist())
]
BEST = {str(k): {"kl": float(np.log(k)), "score": 0.1 * k, "return": 0.1 * k} for k in (1, 2, 4)}


@pytest.fixture
def stages(monkeypatch):
    """What was started or resumed of stages that are done at once; one may be told to stop."""
    found = SimpleNamespace(log=[], stops=None)

    def done(name: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").touch()
        if name == found.stops:
            found.stops = None
            raise Interrupted(15, folder)
        metrics = {"score": {"mean": 2.0}}
        final = {"final_return": {"mean": 0.25, "metrics": metrics}}
        (folder / "summary.json").write_text(json.dumps(final))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))

    def train(options: Any, task: Any) -> None:
        found.log.append(("start", options.run_dir.name))
        done(options.run_dir.name, options.run_dir)

    def resumed(trainer: str, argv: list[str]) -> None:
        found.log.append(("resume", trainer))
        done(Path(argv[1]).name, Path(argv[1]))

    monkeypatch.setattr(rlhf.loop, "train", train)
    monkeypatch.setattr(rlhf.command, "train", resumed)
    monkeypatch.setattr(
        rlhf,
        "trainer_of",
        lambda name: SimpleNamespace(
            name="token_ppo" if name == "ppo" else name,
            setup=lambda args: None,
            complete=lambda args: args,
            options=lambda **how: SimpleNamespace(**how),
        ),
    )
    monkeypatch.setattr(rlhf.flags, "saved_options", lambda trainer, folder: None)
    monkeypatch.setattr(rlhf.evaluate, "of_run", lambda args, options: None)
    monkeypatch.setattr(rlhf.evaluate, "play", lambda args, players: {"best_of": BEST})
    return found


def test_a_stage_that_is_done_is_not_run_again_and_one_that_was_stopped_goes_on(
    stages, tmp_path, capsys
):
    folder = tmp_path / "new"
    stages.stops = "reward_model"
    with pytest.raises(Interrupted, match=f"--resume {folder}$") as stopped:
        rlhf.main(["--run-dir", str(folder), "--ppo.kl-coef", "0.25"])
    assert stopped.value.exit_code == 143 and not (folder / "rlhf.json").exists()
    assert stages.log == [("start", "sft"), ("start", "reward_model")]
    rlhf.main(["--resume", str(folder)])
    assert stages.log[2:] == [("resume", "reward_model"), ("start", "ppo")]
    found = json.loads((folder / "rlhf.json").read_text())
    assert found["kl_coef"] == 0.25 and found["best_of"] == BEST
    assert found["peak"]["kl"] == pytest.approx(1, abs=0.05)
    assert found["peak"]["return"] == pytest.approx(1, abs=0.01)
    assert (folder / "rlhf.png").stat().st_size > 10_000
    assert "at the end      score   2.00, true return 0.250" in capsys.readouterr().out


def test_the_command_refuses_what_cannot_be_and_writes_nothing(refused, tmp_path, kept):
    new = tmp_path / "new"
    cases = [
        (("--env", "CartPole-v1"), "env=CartPole-v1 is not spoken to"),
        (("--samples", 1), "samples=1 must lie in [2, "),
        (("--ppo.kl-coef", -1), "kl_coef=-1.0 must lie in [0.0,"),
        (("--ppo.critic-learning-rate", 0), "critic_learning_rate=0.0 must be a finite number"),
    ]
    for flags_, words in cases:
        assert words in refused(rlhf.run, *flags_, "--run-dir", new), flags_
        assert not new.exists()
    assert "leave --seed out" in refused(rlhf.run, "--resume", kept, "--seed", 1)
    assert "was made by train.reward_model; give" in refused(rlhf.run, "--resume", kept)
