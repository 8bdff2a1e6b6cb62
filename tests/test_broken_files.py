"""Files of runs and of models, damaged in every way: one line that names the file and the field."""

import json
import shutil
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import agents
import jax
import numpy as np
import pytest
import tokenizer_files
from damage import ANY_JSON, check, folder_instead, gone, half, link, pipe, put, rows, text
from flax import nnx
from test_policy import make

from jaxrl import files, policy
from jaxrl.lm import Transformer, folders
from train import arrays, flags, ppo
from train.flags import saved_options
from train.run_folder import run_options


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two finished runs, of arrays and of language, which load."""
    folder = tmp_path_factory.mktemp("whole")
    policy.save_policy(folder / "arrays" / "policy", make("discrete"))
    args = flags.parse(ppo.TRAINER, [])
    kept = {"trainer": "ppo", "options": run_options(args)}
    files.write_json(folder / "arrays" / "config.json", kept)
    models = jax.tree.map(lambda x: x[None], Transformer(agents.MODEL, nnx.Rngs(0)))
    folders.save_models(folders.chat_tokenizer(None), agents.MODEL, folder / "language", models)
    for name, load in LOADERS.items():
        load(folder / name)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def load_run(folder: Path) -> None:
    """As `evaluate` and `export` do."""
    folders.load_chat_tokenizer(folder / "policy")
    folders.load_models(folder)


LOADERS = {
    "arrays": lambda folder: (policy.load_policy(folder), saved_options(ppo.TRAINER, folder)),
    "language": load_run,
}


def space(**changes):
    return lambda path: put(action_space={"type": "Discrete", "n": 4} | changes)(path)


def box(**changes):
    whole = {"type": "Box", "shape": [3], "dtype": "float32", "low": -1.0, "high": 1.0}
    kept = {k: v for k, v in (whole | changes).items() if v is not ...}
    return put(observation_space=kept)


def option(**changes):
    """Of the run's options, or below `algo`."""

    def damage(path: Path) -> None:
        options = json.loads(path.read_text())["options"]
        if isinstance(changes.get("algo"), dict):
            put(options=options | {"algo": options["algo"] | changes["algo"]})(path)
        else:
            put(options=options | changes)(path)

    return damage


POLICY = [
    *ANY_JSON,
    (put(hidden=64), "hidden=64 must be a list"),
    (put(hidden=[64.5]), "hidden[0]=64.5 must be an integer"),
    (put(hidden=[-5]), "hidden=-5 must"),
    (put(hidden=[10**12]), "hidden=1000000000000 must"),
    (put(hidden=[1] * 5000), "hidden has 5000 layers"),
    (put(activation="tan"), "activation=tan is none of"),
    (put(activation=None), "activation=null must be a text"),
    (put(normalize_obs="yes"), 'normalize_obs="yes" must be true or false'),
    (put(scaling="big"), 'scaling="big" is none of'),
    (put(num_seeds=0), "num_seeds=0 must"),
    (put(num_seeds=True), "num_seeds=true must be an integer"),
    (put(extra=1), "field extra"),
    (put(scaling=...), "no field scaling"),
    (put(network="gone:Net"), "network=gone:Net"),
    (put(action_space=[]), "action_space=[] must be an object"),
    (space(type="Discreet"), "action_space.type='Discreet'"),
    (space(type=["Discrete"]), "action_space.type"),
    (space(n=0), "n=0"),
    (space(n=2**31), "n=(2147483648,) must be below"),
    (space(n=2.5), "action_space: n=2.5 must be an integer"),
    (space(m=3), "field m"),
    (box(shape=[10**13]), "observation_space.shape"),
    (box(shape=[-1]), "observation_space.shape"),
    (box(dtype="object"), "observation_space.dtype='object'"),
    (box(dtype="i4,f4"), "observation_space.dtype"),
    (box(low=[1, 2]), "observation_space.low must be"),
    (box(low="a"), "observation_space.low must be"),
    (box(low=2), "low="),
    (box(dtype="uint8", low=-1), "low"),
    (box(high=...), "no field high"),
    (put(observation_space={"type": "dict", "items": [["a", 3]]}), "observation_space.a.type"),
    (put(observation_space={"type": "dict", "items": {"a": 3}}), "items"),
    (put(observation_space={"type": "tuple", "items": [{}]}), "observation_space.0.type"),
    (put(digests={"weights.npz": 5}), "digests"),
    (put(digests={"../../x": "00"}), "plain name"),
]


def npz(**changes):
    """Other arrays in a file of weights."""

    def damage(path: Path) -> None:
        with np.load(path) as kept:
            arrays = dict(kept)
        name = min(arrays)
        for what, value in changes.items():
            arrays[{"first": name}.get(what, what)] = value(arrays[name])
        np.savez(path, **arrays)

    return damage


def header(shape: str, descr: str = "'<f4'"):
    """An array that says it has another shape than its data."""

    def damage(path: Path) -> None:
        body = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        data = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + b"\0" * 8
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", data)

    return damage


def bomb(path: Path) -> None:
    content = BytesIO()
    np.lib.format.write_array(content, np.zeros(10**6, np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue())


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def nan(x):
    return np.full_like(x, np.nan)


WEIGHTS = [
    (gone, "no such file"),
    (text(""), "is damaged"),
    (text("PK"), "is damaged"),
    (half, "is damaged"),
    (flipped, "is damaged"),
    (folder_instead, "is a folder"),
    (pipe, "is a pipe"),
    (link("/dev/zero"), "is a pipe or a device"),
    (header("(10000000000000,)"), "is damaged"),
    (header("(-1,)"), "is damaged"),
    (header("(2,)", "'|O'"), "no number's"),
    (header("(2,)", "'<U1'"), "is damaged"),
    (header("(" * 900), "is damaged"),
    (header("__import__('os')"), "is damaged"),
    (bomb, "more than its"),
    (npz(first=nan), "not finite"),
    (npz(first=lambda x: np.full_like(x, -np.inf)), "not finite"),
    (npz(first=lambda x: x.astype(np.float64)), "not fit"),
    (npz(first=lambda x: x[:0]), "weights.npz"),
    (npz(first=lambda x: np.float32(3)), "weights.npz"),
    (npz(extra=lambda x: x), "missing or extra"),
    (npz(first=lambda x: x + 1), "is not what was written"),
]


MODEL = [
    *ANY_JSON[1:],
    (put(num_heads=0), "num_heads=0"),
    (put(width=64.5), "width=64.5 must be an integer"),
    (put(width=-8), "width=-8 must"),
    (put(num_layers=10**12), "num_layers=1000000000000 must"),
    (put(width=10**9), "are more than"),
    (put(vocab_size=10**9), "are more than"),
    (put(vocab_size=300), "not fit"),
    (put(family="mamba"), 'family="mamba" is none of'),
    (put(rope_scaling=5), "rope_scaling"),
    (put(rope_scaling={"kind": "linear"}), "rope_scaling has no field factor"),
    (put(rope_base=-1.0), "rope_base=-1.0"),
    (put(windowed=[1]), "windowed[0]"),
    (put(context=2**40), "context="),
    (put(window=10**12), "window="),
    (put(param_dtype="int8"), "param_dtype=int8"),
    (put(extra=3), "field extra"),
    (put(hidden=...), "no field hidden"),
]
WORDS = {"opening": ["<|user|>"], "reply": "", "following": "<|end|>", "end": "<|end|>"}
CHAT = [
    *ANY_JSON,
    (put(form=5), "form=5 must be a text"),
    (put(form="chatml2"), "chat=chatml2"),
    (put(form=...), "no field form"),
    (put(template=[5, {}]), "template"),
    (put(template=["a"]), "template"),
    (put(opening=3), "opening=3"),
    (put(extra=3), "field extra"),
    (put(tokenizer="0" * 64), "tokenizer.json is missing"),
    (put(tokenizer=5), "tokenizer=5"),
    (put(thinking="on"), "not what was written"),
    (put(words={"end": 5}), "words has no field opening"),
    (put(words=WORDS | {"end": 5}), "words.end=5 must be a text"),
    (put(words=WORDS | {"opening": []}), "opening=() must hold an odd number of texts"),
    (put(words=WORDS | {"end": "<|no|>"}), "lacks the special token <|no|>"),
]


CONFIG = [
    *ANY_JSON,
    (put(options=None), "options=null must be an object"),
    (put(options=[]), "options=[] must be an object"),
    (put(options=...), "no field options"),
    (put(trainer=5), "trainer=5 must be"),
    (option(env=5), "env=5 must be a text"),
    (option(seed="0"), 'seed="0" must be an integer'),
    (option(seed=0.5), "seed=0.5 must be an integer"),
    (option(seed=-1), "seed=-1 must be"),
    (option(num_seeds=True), "num_seeds=true must be an integer"),
    (option(env_args="length=3"), "env_args"),
    (option(init_from=5), "init_from=5"),
    (option(checkpoint_every="often"), "checkpoint_every"),
    (option(colour="red"), "field colour"),
    (option(algo=5), "algo=5 must be an object"),
    (option(algo={"num_envs": 0}), "num_envs=0"),
    (option(algo={"gamma": "high"}), "algo.gamma"),
    (option(algo={"network": 5}), "algo.network=5"),
    (option(algo={"lr_schedule": "up"}), "algo.lr_schedule"),
    (option(algo={"hidden": [64, None]}), "algo.hidden[1]=null"),
]
ROWS = [
    *rows("arrays/policy/policy.json", POLICY),
    *rows("arrays/policy/weights.npz", WEIGHTS),
    *rows("arrays/config.json", CONFIG),
    *rows("language/policy/model.json", MODEL),
    *rows("language/policy/chat.json", CHAT),
    *rows("language/policy/weights.npz", WEIGHTS),
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("file", "damage", "words"), ROWS)
def test_a_broken_file_of_a_run_is_refused_in_one_line(file, damage, words, copy):
    load, folder = LOADERS[file.split("/")[0]], copy / file.split("/")[0]
    check(lambda: load(folder), copy / file, damage, words)


def test_a_folder_of_an_older_version_loads(whole, copy):
    """Without digests, and with nothing said of the tokenizer."""
    for name in ("arrays/policy/policy.json", "language/policy/model.json"):
        put(digests=...)(copy / name)
    put(tokenizer=..., words=...)(copy / "language" / "policy" / "chat.json")
    for name, load in LOADERS.items():
        load(copy / name)
    old, new = (policy.load_policies(folder / "arrays") for folder in (copy, whole))
    assert jax.tree.all(jax.tree.map(np.array_equal, old, new))
    assert folders.load_models(copy / "language")[0] == agents.MODEL
    assert folders.load_chat_tokenizer(copy / "language" / "policy").tokenizer_json is None


def test_a_tokenizer_that_is_gone_is_never_replaced_by_bytes(tmp_path):
    said = folders.chat_tokenizer(tokenizer_files.file("qwen2"), "chatml", "Be brief.")
    cfg = replace(agents.MODEL, vocab_size=said.tokenizer.vocab_size)
    model = jax.tree.map(lambda x: x[None], Transformer(cfg, nnx.Rngs(0)))
    folders.save_models(said, cfg, tmp_path, model)
    kept, file = tmp_path / "policy", tmp_path / "policy" / "tokenizer.json"
    again = folders.load_chat_tokenizer(kept)
    assert again.tokenizer_json == said.tokenizer_json
    assert jax.tree.structure(again.chat) == jax.tree.structure(said.chat)
    content = file.read_text()
    file.write_text(content.replace("the", "teh", 1) + "\n")
    with pytest.raises(ValueError, match=r"tokenizer.json is not what was written, .* chat.json"):
        folders.load_chat_tokenizer(kept)
    file.unlink()
    with pytest.raises(ValueError, match=r"tokenizer.json is missing, though chat.json"):
        folders.load_chat_tokenizer(kept)
    put(tokenizer=...)(kept / "chat.json")  # an older version's
    with pytest.raises(ValueError, match=r"tokenizer.json is missing, for which chat.json"):
        folders.load_chat_tokenizer(kept)
    put(tokenizer="bytes")(kept / "chat.json")
    file.write_text(content)
    with pytest.raises(
        ValueError, match=r"tokenizer.json is there, though chat.json tells of bytes"
    ):
        folders.load_chat_tokenizer(kept)


def test_files_of_two_runs_do_not_go_together(copy, tmp_path):
    """Of the same shapes, so that nothing else would tell."""
    other = jax.tree.map(lambda x: x + 1, make("discrete"))
    policy.save_policy(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / "weights.npz", copy / "arrays" / "policy")
    with pytest.raises(ValueError, match=r"weights.npz is not what was written, .* policy.json"):
        policy.load_policies(copy / "arrays")


@pytest.mark.parametrize("fails", ["write_json", "digest_of"])
def test_a_save_that_fails_leaves_what_was_there(fails, copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = policy.load_policies(copy / "arrays")
    monkeypatch.setattr(files, fails, full)
    with pytest.raises(OSError, match="No space"):
        policy.save_policy(copy / "arrays" / "policy", jax.tree.map(lambda x: x + 1, before))
    monkeypatch.undo()
    after = policy.load_policies(copy / "arrays")
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert sorted(p.name for p in (copy / "arrays").iterdir()) == ["config.json", "policy"]


def test_a_policy_of_another_environment_is_not_evaluated(copy):
    """The one saved here sees three numbers, CartPole's state has four."""
    args = saved_options(ppo.TRAINER, copy / "arrays")
    with pytest.raises(ValueError, match=r"config.json has env=CartPole-v1 with the spaces .*json"):
        arrays.reload(copy / "arrays", args)


def test_a_conversation_that_would_be_another_once_loaded_is_refused():
    said = folders.chat_tokenizer(None)
    folders.check_saved(said, agents.MODEL)
    with pytest.raises(ValueError, match=r"chat.json holds half of a surrogate pair"):
        folders.check_saved(replace(said, form="\ud800"), agents.MODEL)
    with pytest.raises(ValueError, match=r"chat.json: form=5 must be a text"):
        folders.check_saved(replace(said, form=5), agents.MODEL)
    with pytest.raises(ValueError, match=r"system='\\udcff' is not UTF-8"):
        folders.chat_tokenizer(None, "", "\udcff")
