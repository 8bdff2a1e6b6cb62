"""Where a language agent's weights and tokenizer come from, and how a run folder keeps them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrl.lm.model import lora, weights
from jaxrl.lm.model.config import PRESETS, RELEASED, ModelConfig, RopeScaling, preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.policy import fill_leaves, named_leaves, read_weights
from jaxrl.text import BpeTokenizer, ByteTokenizer, Chat, Tokenizer, make_chat
from jaxrl.text.chat import check_template, matching, opening_of


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its form of conversation, and what rebuilds them."""

    chat: Chat
    form: str  # a name in jaxrl.text.FORMATS; "" takes the one that fits
    opening: str | None  # before the first user's turn; None: the form's own
    tokenizer_json: str | None  # the file's text; None: bytes
    template: tuple[str, dict[str, str]] | None = None  # the model's own, with its tokens' names

    @property
    def tokenizer(self) -> Tokenizer:
        return self.chat.tokenizer

    def opening_with(self, system: str) -> str:
        """What stands before the first user's turn after this system message, as text."""
        if self.template is not None:
            return check_template(self.tokenizer, self.form, system, *self.template)
        return opening_of(matching(self.tokenizer, self.form), system)

    def save(self, folder: Path) -> None:
        """`chat.json` and, where there is one, `tokenizer.json`."""
        if self.tokenizer_json is not None:
            (folder / "tokenizer.json").write_text(self.tokenizer_json)
        kept = {"form": self.form, "opening": self.opening, "template": self.template}
        (folder / "chat.json").write_text(json.dumps(kept, indent=2) + "\n")


def chat_tokenizer(tokenizer: Path | None, form: str = "", system: str = "") -> ChatTokenizer:
    """The conversation of a tokenizer.json, or of the folder it lies in; None: of bytes.

    A chat template beside the file says what opens a conversation and is held against the form;
    ValueError where they differ.
    """
    if tokenizer is None:
        return ChatTokenizer(make_chat(ByteTokenizer(), form, system), form, None, None)
    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    read = BpeTokenizer.from_file(path)
    template, names = _template(path.parent)
    opening = None if template is None else check_template(read, form, system, template, names)
    own = None if template is None else (template, names)
    return ChatTokenizer(
        make_chat(read, form, system, opening), form, opening, path.read_text(), own
    )


def load_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """The conversation that a run's `policy/` keeps."""
    path = folder / "chat.json"
    try:
        kept = json.loads(path.read_text())
        form, opening, template = kept["form"], kept["opening"], kept.get("template")
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); copy it again from another run of the same model."
        ) from None
    found = folder / "tokenizer.json"
    text = found.read_text() if found.is_file() else None
    tokenizer = ByteTokenizer() if text is None else BpeTokenizer.from_file(found)
    own = None if template is None else (template[0], template[1])
    return ChatTokenizer(make_chat(tokenizer, form, "", opening), form, opening, text, own)


def _template(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The chat template of a model's folder, and the names of tokens that it may use."""
    path = folder / "tokenizer_config.json"
    try:
        kept = json.loads(path.read_text()) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    names = {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in kept.items()
        if name in ("bos_token", "eos_token", "pad_token", "unk_token") and token
    }
    template = kept.get("chat_template")
    if isinstance(template, list):
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    separate = folder / "chat_template.jinja"
    return (separate.read_text() if separate.is_file() else template), names


def start(
    model: str,
    init_from: Path | None,
    tokenizer: Path | None,
    form: str,
    system: str,
    dtype: str,
) -> tuple[ChatTokenizer, ModelConfig, Transformer | None]:
    """What a run starts with: its conversation, the model's structure, and weights if not random.

    `model` is a preset's name or else a folder saved by `transformers` (`./nano` is one, `nano` is
    not); `init_from`, a run's folder or such a one, replaces it.
    """
    named = model_folder(model)
    folder = init_from or (named if named is not None and named.is_dir() else None)
    if folder is not None and is_run(folder):
        if tokenizer is not None:
            raise ValueError(f"tokenizer={tokenizer}: {folder} has its own; leave the option out.")
        config, found = load_models(folder)
        config, first = lora.merge(config, jax.tree.map(lambda x: x[0], found))
        return load_chat_tokenizer(folder / "policy"), config, first
    if folder is None:
        spoken = chat_tokenizer(tokenizer, form, system)
        return spoken, preset(model, spoken.tokenizer.vocab_size, dtype), None
    found = folder / "tokenizer.json"
    if tokenizer is None and not found.is_file():
        raise ValueError(f"{folder} has no tokenizer.json; give one with --tokenizer FILE.")
    spoken = chat_tokenizer(tokenizer or found, form, system)
    config, loaded = weights.load(folder, param_dtype="float32", dtype=dtype, on_host=True)
    if spoken.tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {spoken.tokenizer.vocab_size} tokens, the model in {folder} "
            f"{config.vocab_size}; give the tokenizer that the model was trained with."
        )
    return spoken, config, loaded


def model_folder(model: str) -> Path | None:
    """The folder that an option names, whether it is there or not; None for a preset's name."""
    return None if model in PRESETS or model in RELEASED else Path(model)


def is_run(folder: Path) -> bool:
    """A run's folder, or one that is meant to be; not a model's, which has safetensors files."""
    if (folder / "policy" / "model.json").is_file():
        return True
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds neither policy/model.json nor *.safetensors; give the folder of a "
            "finished run of a language agent, or one saved by transformers."
        )
    return False


def save_models(spoken: ChatTokenizer, config: ModelConfig, folder: Path, models: Any) -> None:
    """Weights of all seeds, the structure and the conversation, into `policy/`."""
    folder = folder / "policy"
    folder.mkdir(parents=True, exist_ok=True)
    leaves: Any = {name: np.asarray(x) for name, x in named_leaves(models).items()}
    np.savez(folder / "weights.npz", **leaves)
    (folder / "model.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    spoken.save(folder)


def load_models(folder: Path) -> tuple[ModelConfig, Transformer]:
    """The models of all seeds of a run folder, leaves [K, ...]."""
    saved = json.loads((folder / "policy" / "model.json").read_text())
    known: Any = {name: tuple(x) if isinstance(x, list) else x for name, x in saved.items()}
    if known.get("rope_scaling"):
        known["rope_scaling"] = RopeScaling(**known["rope_scaling"])
    config = ModelConfig(**known)
    path = folder / "policy" / "weights.npz"
    leaves = read_weights(path)
    count = min(len(x) for x in leaves.values())

    def stacked():
        model = Transformer(config, nnx.Rngs(0))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), model)

    found = fill_leaves(jax.eval_shape(stacked), leaves, str(path))
    return config, jax.tree.map(jnp.asarray, found)
