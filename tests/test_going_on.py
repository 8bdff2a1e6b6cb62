"""A run goes on as the run that it was: what may change, what must not, and what is said of it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from jaxrl import checkpoint
from jaxrl.checkpoint import Checkpoints, numbered
from jaxrl.train.resume import Past, files_of, layout_of, refuse_changes
from train import command, flags, grpo, loop, ppo
from train.devices import MOST_IN_CACHE, choose, num_cores
from train.run_folder import RunFolder, read_config

NEWEST = 4
LINES = {"start": NEWEST, "sums": {}, "spans": [[0, 1, NEWEST]]}


class Compiled(Exception):
    """The run would go on: it came as far as the program."""


@pytest.fixture
def go_on(monkeypatch, capfd):
    """`--resume` as far as the program; (whether it came there, what it said)."""

    def reached(*args, **kwargs):
        raise Compiled

    monkeypatch.setattr(loop, "make_program", reached)

    def run(*argv: object) -> tuple[bool, str]:
        with pytest.raises((SystemExit, Compiled)) as stop:
            command.run("ppo", ["--resume", *map(str, argv)])
        out, err = capfd.readouterr()
        came = isinstance(stop.value, Compiled)
        if not came:
            assert (stop.value.code, out) == (2, "") and err.count("\n") == 1, err
        return came, err

    return run


def refused(go_on, *argv: object) -> str:
    """What is said of a resume that is refused, which leaves everything as it is."""
    folder = Path(str(argv[0]))
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    came, said = go_on(*argv)
    assert not came and said.startswith("error: "), said
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return said


def accepted(go_on, *argv: object) -> str:
    came, said = go_on(*argv)
    assert came, said
    return said.rsplit("compile", 1)[0]


def test_a_device_of_several_cores_says_how_many_and_another_number_is_told():
    mesh = choose(0, 1, 16, 512, MOST_IN_CACHE + 1)
    of_all, of_one = layout_of(mesh, 16, MOST_IN_CACHE + 1), layout_of(mesh, 16, MOST_IN_CACHE)
    assert mesh.devices.size == 1
    assert (of_all.cores, of_one.cores) == (num_cores(), 0)
    assert f"of {num_cores()} cores" in of_all.words() and "cores" not in of_one.words()


def make(folder: Path, *flags_: str, devices: int = 1, seeds: int = 1, old: bool = False) -> Path:
    """The folder of a run of PPO that was stopped at iteration NEWEST."""
    argv = [*flags_, "--num-seeds", str(seeds), "--run-dir", str(folder)]
    args = flags.parse(ppo.TRAINER, flags.full_names(argv))
    mesh = choose(devices, seeds, args.algo.num_blocks, args.algo.minibatch_rows)
    layout = asdict(layout_of(mesh, args.algo.num_blocks))
    about = {} if old else {"layout": layout, "files": files_of(args)}
    run = RunFolder.create(folder, args, about, writes=True, trainer="ppo")
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"iteration": {i}}}\n' for i in range(1, NEWEST + 1))
    )
    of_old = {k: run.config["options"][k] for k in ("env", "env_args", "seed", "num_seeds")}
    record = {"config": run.config, "lines": LINES, "transcripts": [0, 0]}
    saved = Checkpoints(folder / "checkpoints")
    state = {"weight": jnp.arange(9.0), "iteration": jnp.zeros((seeds,), jnp.int32)}
    for iteration in (2, NEWEST):
        saved.save(iteration, state, {"trainer": "ppo"} | of_old if old else record)
    saved.close()
    return folder


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return make(tmp_path / "run")


def edit(folder: Path, change) -> None:
    """config.json as somebody edited it."""
    config = read_config(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_run_that_is_as_it_was_goes_on_without_a_word(go_on, run_dir):
    assert accepted(go_on, run_dir) == ""


@pytest.mark.parametrize(
    ("devices", "seeds", "there"), [(1, 1, 8), (2, 1, 8), (2, 1, 2), (4, 2, 8), (3, 3, 4)]
)
def test_the_layout_stays_as_it_was_on_a_machine_that_has_more(
    go_on, tmp_path, monkeypatch, devices, seeds, there
):
    folder = make(tmp_path / "run", devices=devices, seeds=seeds)
    devices_here(monkeypatch, there)
    meshes = []
    monkeypatch.setattr(loop, "program_of", lambda task, mesh: meshes.append(mesh) or stop())
    assert accepted(go_on, folder) == ""
    assert meshes[0].devices.size == devices


def stop():
    raise Compiled


def devices_here(monkeypatch, count: int) -> None:
    """As if the machine had so many."""
    import jax

    first = jax.devices()[:count]
    monkeypatch.setattr(jax, "devices", lambda *backend: first)


@pytest.mark.parametrize(
    ("devices", "seeds", "there", "words"),
    [
        (2, 1, 1, ("2 cpu device(s), 2 a seed", "there would be 1 cpu", "--devices 1 goes on")),
        (4, 2, 3, ("4 cpu device(s), 2 a seed", "there would be 2 cpu", "--devices 2 goes on")),
        (2, 2, 1, ("2 cpu device(s), 1 a seed", "there would be 1 cpu", "--devices 1 goes on")),
    ],
)
def test_a_layout_that_cannot_be_kept_is_asked_for(
    go_on, tmp_path, monkeypatch, devices, seeds, there, words
):
    folder = make(tmp_path / "run", devices=devices, seeds=seeds)
    devices_here(monkeypatch, there)
    said = refused(go_on, folder)
    for word in (*words, "from iteration 4 on", f"device_count={devices} keeps it"):
        assert word in said
    number = words[-1].split()[1]
    said = accepted(go_on, folder, "--devices", number)
    assert "note: layout: " in said and "from iteration 4 on it is not bit-equal" in said


@pytest.mark.parametrize("change", [{"platform": "tpu"}, {"processes": 2}])
def test_another_platform_or_number_of_hosts_is_asked_for_too(go_on, run_dir, change):
    record_of(run_dir, lambda config: config["layout"].update(change))
    said = refused(go_on, run_dir)
    assert str(next(iter(change.values()))) in said and "--devices " in said
    assert "XLA_FLAGS" not in said
    accepted(go_on, run_dir, "--devices", "1")


def test_another_kind_of_device_is_told(go_on, run_dir):
    record_of(run_dir, lambda config: config["layout"].update(kind="TPU v9"))
    assert "TPU v9 -> " in accepted(go_on, run_dir)


def record_of(folder: Path, change) -> None:
    """The run as it would be had it been made so: in config.json and in its checkpoints."""
    edit(folder, change)
    config = read_config(folder)
    shutil.rmtree(folder / "checkpoints")
    saved = Checkpoints(folder / "checkpoints")
    for iteration in (2, NEWEST):
        saved.save(iteration, {"weight": jnp.arange(9.0)}, {"config": config, "lines": LINES})
    saved.close()


def test_the_layout_of_the_last_resume_counts(go_on, run_dir, monkeypatch):
    first = read_config(run_dir)["layout"]
    entry = {"iteration": 3, "layout": first | {"devices": 2, "per_seed": 2}}
    made = {k: read_config(run_dir)[k] for k in ("python", "packages", "code")}
    record_of(run_dir, lambda config: config.update(resumed=[entry | made]))
    devices_here(monkeypatch, 1)
    assert "was made on 2 cpu device(s)" in refused(go_on, run_dir)


def test_a_run_without_a_checkpoint_keeps_its_layout_too(go_on, tmp_path, monkeypatch):
    folder = make(tmp_path / "run", devices=2)
    shutil.rmtree(folder / "checkpoints")
    devices_here(monkeypatch, 1)
    assert "from iteration 0 on" in refused(go_on, folder)


LANGUAGE = ("--env", "language/GuessTheNumber-easy", "--tokenizer", "t.json", "--data", "d.jsonl")


@pytest.fixture
def spoken(tmp_path, monkeypatch) -> tuple[dict, Any]:
    """config.json of a language agent's run, and its options when it goes on."""
    monkeypatch.chdir(tmp_path)
    for name in ("t.json", "d.jsonl"):
        Path(name).write_text(name)
    args = flags.parse(grpo.TRAINER, [*LANGUAGE, "--run-dir", "run"])
    folder = RunFolder.create(
        Path("run"), args, {"files": files_of(args)}, writes=True, trainer="grpo"
    )
    return folder.config, flags.parse(grpo.TRAINER, ["--resume", "run"])


OTHER = {
    "lora_alpha": 16.0,
    "lora_rank": 2,
    "system": "be brief",
    "dtype": "bfloat16",
    "chat": "chatml",
    "split": True,
    "model": "tiny",
    "log_every": 7,
    "preset": "from-scratch",
    "tokenizer": None,
}


@pytest.mark.parametrize("name", OTHER)
def test_whatever_is_not_said_to_be_free_must_stay(spoken, name):
    config, before = spoken
    asked = replace(before, **{name: OTHER[name]})
    with pytest.raises(ValueError, match=f"{name}: .* -> {OTHER[name]}") as error:
        refuse_changes(config, before, asked)
    assert "run=" not in str(error.value) and "\n" not in str(error.value)


FREE = {"devices": 2, "checkpoint_every": 5.0, "eval_episodes": 3, "wandb": True, "profile": True}


def test_what_is_free_may_change_and_the_length_may_grow(spoken):
    config, before = spoken
    longer = replace(before.algo, total_episodes=before.algo.total_episodes + 1)
    refuse_changes(config, before, replace(before, **FREE, algo=longer))
    with pytest.raises(ValueError, match=r"algo\.total_episodes: "):
        refuse_changes(config, before, replace(before, algo=replace(longer, total_episodes=64)))


@pytest.mark.parametrize("name", ["t.json", "d.jsonl"])
def test_a_file_that_the_run_reads_must_be_what_it_was(spoken, name):
    config, before = spoken
    option = {"t.json": "tokenizer", "d.jsonl": "data"}[name]
    refuse_changes(config, before, before)
    Path("moved").mkdir()
    Path("moved", name).write_text(name)
    refuse_changes(config, before, replace(before, **{option: Path("moved", name)}))
    Path("moved", name).write_text("another")
    with pytest.raises(ValueError, match=rf"{option}: {name} -> moved/{name}: .* is another since"):
        refuse_changes(config, before, replace(before, **{option: Path("moved", name)}))
    Path(name).unlink()
    with pytest.raises(ValueError, match=rf"{option}={name} cannot be read .* with --{option}"):
        refuse_changes(config, before, before)


def test_a_template_that_came_beside_the_tokenizer_is_seen(spoken):
    config, before = spoken
    Path("chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ValueError, match=r"chat_template\.jinja is new since the run was started"):
        refuse_changes(config, before, before)


def test_weights_to_start_from_are_read_at_the_start_alone(tmp_path):
    """And may be gone, or trained further, once there is a checkpoint."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "policy.json").write_text("{}")
    folder = make(tmp_path / "run", "--init-from", str(given))
    config, args = read_config(folder), flags.parse(ppo.TRAINER, ["--resume", str(folder)])
    assert config["files"]["init_from"].keys() == {"policy.json"}
    shutil.rmtree(given)
    refuse_changes(config, args, args)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match=r"init_from=.* cannot be read \(no such file"):
        refuse_changes(config, args, args)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["options"].update(seed=7), ("seed=7", "made with seed=0; put 0 back")),
        (
            lambda c: c["options"]["algo"].update(learning_rate=0.5),
            ("algo.learning_rate=0.5", "made with algo.learning_rate=0.0025; put 0.0025 back"),
        ),
        (
            lambda c: c["options"]["algo"].pop("gamma") and c["options"]["algo"].update(gamma=0.5),
            ("algo.gamma=0.5", "put 0.99 back"),
        ),
        (lambda c: c["options"]["algo"].update(total_steps=10), ("put 500000 back",)),
        (lambda c: c["files"].update(data={"d": "0"}), ("files.data",)),
    ],
)
def test_an_option_that_was_edited_is_named_with_the_way_back(go_on, run_dir, change, words):
    edit(run_dir, change)
    said = refused(go_on, run_dir)
    assert f"{run_dir}/config.json says " in said and "delete" not in said
    for word in words:
        assert word in said


def test_a_checkpoint_of_another_run_is_told_from_an_edited_one(go_on, run_dir, tmp_path):
    other = make(tmp_path / "other", "--seed", "7")
    shutil.rmtree(run_dir / "checkpoints/4")
    shutil.copytree(other / "checkpoints/4", run_dir / "checkpoints/4")
    said = refused(go_on, run_dir)
    assert f"checkpoint {run_dir}/checkpoints/4 is of another run: its seed is 7, not 0" in said
    assert "delete" not in said and "config.json" not in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["packages"].update(jax="0.0.1"), "packages.jax was edited from "),
        (lambda c: c.update(python="2.7"), "python was edited from "),
        (lambda c: c.update(started="long ago"), "started was edited from "),
        (lambda c: c["layout"].update(devices=8), "layout.devices was edited from 1 to 8"),
        (lambda c: c.update(resumed=[]), ""),
        (lambda c: c.update(note="mine"), ""),
    ],
)
def test_what_else_was_edited_in_the_config_gets_its_word_and_is_put_back(
    go_on, run_dir, change, words
):
    edit(run_dir, change)
    said = accepted(go_on, run_dir)
    assert said.count("\n") == bool(words) and words in said


def test_an_edited_record_of_a_resume_gets_its_word(run_dir):
    config = read_config(run_dir)
    record = {"config": config | {"resumed": [made_now(config) | {"iteration": 3}]}}
    past = Past(config, record, NEWEST, run_dir / "checkpoints/4", resuming(run_dir))
    assert past.words == ["config.json: resumed was edited; put back"]
    assert past.config["resumed"] == record["config"]["resumed"]


def made_now(config: dict) -> dict:
    return {name: config[name] for name in ("python", "packages", "code", "layout")}


def resuming(folder: Path) -> Any:
    return flags.parse(ppo.TRAINER, ["--resume", str(folder)])


def test_other_versions_are_told_in_one_line(go_on, run_dir):
    record_of(run_dir, lambda c: (c["packages"].update(jax="0.0.1"), c.update(python="2.7")))
    said = accepted(go_on, run_dir)
    assert said.count("\n") == 1 and "jax 0.0.1 -> " in said and "python 2.7 -> " in said
    assert "from iteration 4 on it may not be bit-equal" in said


def test_a_copy_under_another_number_is_refused(go_on, run_dir):
    shutil.copytree(run_dir / "checkpoints/2", run_dir / "checkpoints/900")
    said = refused(go_on, run_dir)
    assert f"{run_dir}/checkpoints/900 holds iteration 2: it was copied or renamed" in said
    assert "delete" not in said and "to resume from iteration 4" in said
    shutil.move(run_dir / "checkpoints/900", run_dir / "elsewhere")
    assert accepted(go_on, run_dir) == ""


def test_an_older_versions_checkpoint_goes_on_with_a_word(go_on, tmp_path):
    folder = make(tmp_path / "run", old=True)
    said = accepted(go_on, folder)
    assert said.count("\n") == 1 and "is an older version's" in said
    edit(folder, lambda c: c["options"].update(seed=7))
    said = refused(go_on, folder)
    assert "is of another run, or" in said and "its seed is 0, not 7" in said
    assert "put 0 back into config.json" in said and "delete" not in said


def test_only_folders_with_a_numbers_own_name_are_checkpoints(go_on, run_dir):
    kept = run_dir / "checkpoints"
    for name in ("0008", "\u00b2"):
        shutil.copytree(kept / "2", kept / name)
    (kept / "900").write_text("notes")
    assert accepted(go_on, run_dir) == ""
    assert numbered(kept) == [2, NEWEST]


def test_a_checkpoints_files_are_read_for_their_digests_once(run_dir, monkeypatch):
    seen = []
    monkeypatch.setattr(checkpoint, "_damage", lambda path: seen.append(path) or "")
    saved = Checkpoints(run_dir / "checkpoints")
    saved.record(NEWEST)
    state = {"weight": jnp.zeros(9), "iteration": jnp.zeros((1,), jnp.int32)}
    assert saved.restore(NEWEST, state)["weight"].tolist() == list(range(9))
    saved.close()
    assert seen == [run_dir / "checkpoints" / str(NEWEST)]
