"""Ids of Hugging Face: a cache made by hand, no network, and what is told without either."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import agents
import jax
import numpy as np
import pytest
import tokenizer_files
from flax import nnx

from jaxrl import hub
from jaxrl.lm import Transformer, folders
from jaxrl.lm.model import weights
from jaxrl.policy import named_leaves
from train import flags, paths, resume
from train import grpo as train_grpo

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """`org/small` as huggingface_hub keeps it: files are links to blobs beside the snapshots."""
    from huggingface_hub import constants

    def refuse(*_):
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    hub.snapshot.cache_clear()
    model = Transformer(cfg := replace(agents.MODEL, vocab_size=600), nnx.Rngs(0))
    weights.save(tmp_path / "made", cfg, model)
    text = tokenizer_files.file("qwen2").read_text()
    (tmp_path / "made" / "tokenizer.json").write_text(text)
    (tmp_path / "made" / "generation_config.json").write_text(json.dumps({"eos_token_id": [7]}))
    home = tmp_path / "hub" / "models--org--small"
    snapshot = home / "snapshots" / COMMIT
    for folder in (snapshot, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    for i, path in enumerate((tmp_path / "made").iterdir()):
        path.rename(home / "blobs" / f"b{i}")
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"b{i}")
    (home / "refs" / "main").write_text(COMMIT)
    yield model
    hub.snapshot.cache_clear()


@pytest.mark.parametrize("model", ["org/small", f"org/small@{COMMIT}", "org/small@main"])
def test_an_id_is_the_folder_of_its_snapshot(cache, model, tmp_path):
    spoken, cfg, found = folders.start(model, None, None, "", "", "float32")
    assert cfg.end_ids == (7,) and spoken.form == ""
    for name, x in named_leaves(found).items():
        np.testing.assert_array_equal(x, named_leaves(cache)[name])
    _, _, again = folders.start("nano", Path(model), None, "", "", "float32")
    assert jax.tree.all(jax.tree.map(np.array_equal, found, again))
    folder = tmp_path / "hub" / "models--org--small" / "snapshots" / COMMIT
    assert folders.model_folder(model) == folder
    (folder / "model.safetensors").unlink()  # a tokenizer is enough for a model from scratch
    spoken, cfg, none = folders.start("nano", None, Path(model), "", "", "float32")
    assert none is None and cfg.vocab_size == spoken.tokenizer.vocab_size


def test_a_runs_files_are_those_of_the_snapshot_and_the_id_stays_in_its_options(cache):
    args = flags.parse(train_grpo.TRAINER, ["--model", "org/small"])
    assert args.model == "org/small"
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert resume.files_of(args)["model"].keys() == names
    args = flags.parse(train_grpo.TRAINER, ["--init-from", "org/small", "--tokenizer", "org/small"])
    assert resume.files_of(args).keys() == {"init_from", "tokenizer"}


def test_a_folder_that_is_there_is_no_id_and_a_path_is_none_either(cache, tmp_path):
    (tmp_path / "org" / "small").mkdir(parents=True)
    assert folders.model_folder("org/small") == Path("org/small")
    shutil.rmtree(tmp_path / "org" / "small")
    with pytest.raises(ValueError, match="model=org/small is no preset and no folder; try one of"):
        folders.start("org/small", None, None, "", "", "float32")
    shutil.rmtree(tmp_path / "org")
    for text in (
        "./org/small",
        "/org/small",
        "org",
        "org/small/x",
        "../org",
        "org/small/",
        "a b/c",
    ):
        assert not hub.is_id(text), text
    assert folders.model_folder("nano") is None
    for option, kind in (("--init-from", "a folder"), ("--tokenizer", "a file or folder")):
        words = rf"=./org/small is not there; give {kind}, or ORG/NAME of Hugging Face\."
        with pytest.raises(ValueError, match=words):
            flags.parse(train_grpo.TRAINER, [option, "./org/small"])
    paths.check(train_grpo.TRAINER.options, {"--init-from": "org/small"})


MISSING = [
    ("org/other", "is not in the cache"),
    ("org/small@v2", "is not in the cache"),
    ("org/sm--all", "Cannot have -- or .. in repo_id: 'org/sm--all'; try Qwen/Qwen3-0.6B."),
]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(("model", "words"), MISSING)
def test_without_network_and_cache_one_line_says_so(cache, model, words, offline, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ValueError) as error:
        folders.start(model, None, None, "", "", "float32")
    said = str(error.value)
    assert said.startswith(f"{model} is no folder here, and as a model of Hugging Face: ")
    assert words in said and said.isprintable() and len(said) < 500
    if "cache" in words:
        assert str(constants.HF_HUB_CACHE) in said
        assert ("HF_HUB_OFFLINE is set" if offline else "the network failed (") in said


ANSWERS = [
    ("GatedRepoError", "its owner asks who you are; see huggingface.co/org/other, then `hf auth"),
    ("RepositoryNotFoundError", "Hugging Face has no such model, or it is private"),
    ("RevisionNotFoundError", "Hugging Face has no revision v2 of it; leave @v2 out."),
]


@pytest.mark.parametrize(("kind", "words"), ANSWERS)
def test_what_the_hub_refuses_is_told_in_a_line(cache, kind, words, monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        error = getattr(huggingface_hub.errors, kind)
        raise error.__new__(error, "of\ntwo lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError) as error:
        hub.snapshot("org/other@v2")
    assert words in str(error.value) and str(error.value).isprintable()


def test_what_an_earlier_download_left_out_is_named(cache, tmp_path):
    folder = tmp_path / "hub" / "models--org--small" / "snapshots" / COMMIT
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"org/small has no \*.safetensors in .*; where the model"):
        folders.start("org/small", None, None, "", "", "float32")


class Network:
    """A Hugging Face that has all of these files, and is asked for what the cache lacks."""

    def __init__(self, cache: Path):
        import huggingface_hub

        self.folder = cache / "models--org--small" / "snapshots" / COMMIT
        self.files = {path.name: path.resolve() for path in self.folder.iterdir()}
        self.real, self.asked = huggingface_hub.snapshot_download, []

    def download(self, name, *, local_files_only=False, **how):
        if not local_files_only:
            self.asked.append(how["revision"])
            for file, blob in self.files.items():
                if not (self.folder / file).exists():
                    (self.folder / file).symlink_to(blob)
        return self.real(name, local_files_only=True, **how)


@pytest.fixture
def network(cache, tmp_path, monkeypatch):
    made = Network(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.download)
    return made


@pytest.mark.parametrize("weights", [True, False])
def test_a_commit_that_is_whole_asks_no_network_and_a_branch_does(network, weights):
    hub.snapshot(f"org/small@{COMMIT}", weights)
    assert network.asked == []
    hub.snapshot("org/small@main", weights)
    assert network.asked == ["main"]


SHARD = "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json", "model.safetensors", SHARD])
def test_a_commit_whose_download_was_interrupted_is_completed(network, missing):
    if missing == SHARD:
        index = {"weight_map": {"a": "model.safetensors", "b": SHARD}}
        (network.folder / hub.INDEX).write_text(json.dumps(index))
        network.files[SHARD] = network.files["model.safetensors"]
    else:
        (network.folder / missing).unlink()
    assert (hub.snapshot(f"org/small@{COMMIT}") / missing).exists()
    assert network.asked == [COMMIT]


def test_a_model_without_a_tokenizer_may_be_given_one_and_without_a_shard_is_no_model(network):
    (network.folder / "tokenizer.json").unlink()
    del network.files["tokenizer.json"]
    assert hub.snapshot(f"org/small@{COMMIT}") == network.folder
    hub.snapshot.cache_clear()
    (network.folder / hub.INDEX).write_text(json.dumps({"weight_map": {"b": SHARD}}))
    with pytest.raises(ValueError, match=f"org/small@{COMMIT} has no {SHARD} in .*; where the"):
        hub.snapshot(f"org/small@{COMMIT}")
