"""Where a language agent's weights and tokenizer come from, and how a run folder keeps them."""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrl import files, hub
from jaxrl.lm.model import lora, weights
from jaxrl.lm.model.config import PRESETS, RELEASED, ModelConfig, preset
from jaxrl.lm.model.transformer import Transformer
from jaxrl.policy import COPY, fill_leaves, read_weights, save_weights
from jaxrl.text import BpeTokenizer, ByteTokenizer, Chat, Tokenizer, make_chat
from jaxrl.text.chat import check_told, matching
from jaxrl.text.chat_template import template_words
from jaxrl.text.formats import Opening, Words, words_after, words_of
from jaxrl.text.tool_forms import Schemas

WEIGHTS, MODEL, CHAT, TOKENIZER = "weights.npz", "model.json", "chat.json", "tokenizer.json"


@dataclass(frozen=True)
class SavedChat:
    """chat.json: the form of conversation, and which tokenizer it is for."""

    form: str
    opening: str | Opening | None = None  # in old folders: before the first user's turn
    template: tuple[str, dict[str, str]] | None = None
    tokenizer: str | None = None  # "bytes", or the digest of tokenizer.json; None in old folders
    date: str = ""
    words: Words | None = None  # None in old folders
    thinking: str = ""
    tools: Schemas = ()
    system: str | None = None


@dataclass(frozen=True)
class SavedModel(ModelConfig):
    """model.json: the structure, and which files belong to it."""

    digests: dict[str, str] | None = None  # None in old folders


@dataclass(frozen=True)
class NamedTemplate(files.Foreign):
    """One of several chat templates."""

    name: str
    template: str


@dataclass(frozen=True)
class Token(files.Foreign):
    """A token's name among what else is known of it."""

    content: str


@dataclass(frozen=True)
class TokenizerConfig(files.Foreign):
    """What matters of a `tokenizer_config.json`."""

    chat_template: str | list[NamedTemplate] | None = None
    bos_token: str | Token | None = None
    eos_token: str | Token | None = None
    pad_token: str | Token | None = None
    unk_token: str | Token | None = None


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer with its form of conversation, and what rebuilds them."""

    chat: Chat
    form: str  # a name in jaxrl.text.FORMATS; "" takes the one that fits, or the template
    tokenizer_json: str | None  # the file's text; None: bytes
    template: tuple[str, dict[str, str]] | None = None  # the model's own, with its tokens' names
    date: str = ""  # the day on which that was run; "" takes today
    thinking: str = ""  # "on" or "off", as that was asked; "" is its default
    tools: Schemas = ()  # of which the conversation tells
    system: str | None = None  # the message before it that was asked for

    @property
    def tokenizer(self) -> Tokenizer:
        return self.chat.tokenizer

    def words_with(self, system: str | None) -> Words:
        """The words of the conversation after this system message."""
        if self.template is None:
            check_told(self.tokenizer, self.tools)
            return words_of(matching(self.tokenizer, self.form), system, self.tools)
        template, names = self.template
        how = (self.date, self.thinking, self.tools)
        return template_words(template, self.tokenizer, system, names, *how)

    def after(self, system: str | None, tools: Schemas) -> "ChatTokenizer":
        """The conversation with this system message and tools; ValueError where it has none."""
        other = replace(self, tools=tools, system=system)
        return other.in_words(other.words_with(system))

    def in_words(self, words: Words) -> "ChatTokenizer":
        """The conversation in these words."""
        return replace(self, chat=make_chat(self.tokenizer, self.form, "", words))

    def save(self, folder: Path) -> None:
        """`chat.json` and, where there is one, `tokenizer.json`."""
        tokenizer = "bytes"
        if self.tokenizer_json is not None:
            files.write_text(folder / TOKENIZER, self.tokenizer_json)
            tokenizer = files.digest_of(folder / TOKENIZER)
        files.write_json(folder / CHAT, asdict(self.saved(tokenizer)))

    def saved(self, tokenizer: str) -> SavedChat:
        return SavedChat(
            self.form,
            template=self.template,
            tokenizer=tokenizer,
            date=self.date,
            words=self.chat.words,
            thinking=self.thinking,
            tools=self.tools,
            system=self.system,
        )


def chat_tokenizer(
    tokenizer: Path | None,
    form: str = "",
    system: str = "",
    date: str = "",
    thinking: str = "",
    tools: Schemas = (),
) -> ChatTokenizer:
    """The conversation of a tokenizer.json, or of the folder it lies in; None: of bytes.

    Where no form is asked for, a chat template beside the file says, on this day, which words stand
    around what is said, and how it tells of tools; ValueError where that is not the same in every
    turn, or where it knows of no tools.
    """
    try:
        system.encode()
    except UnicodeEncodeError:
        raise ValueError(f"system={system!r} is not UTF-8; write it in that encoding.") from None
    if tokenizer is None:
        read, text, own = ByteTokenizer(), None, None
    else:
        path = files.inside(tokenizer, TOKENIZER) if tokenizer.is_dir() else tokenizer
        read, text = BpeTokenizer.from_file(path), files.read_text(path, files.MOST_BYTES)
        own = None if form else _template(path.parent)
    if own is None:
        if thinking:
            raise ValueError(
                f"thinking={thinking} needs a model's own chat template; leave --thinking out."
            )
        chat, template = make_chat(read, form, system, tools=tools), None
    else:
        file, written, names = own
        with files.reading(file):
            words = template_words(written, read, system or None, names, date, thinking, tools)
        chat, template = make_chat(read, form, "", words), (written, names)
    return ChatTokenizer(chat, form, text, template, date, thinking, tools, system or None)


def load_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """The conversation that a run's `policy/` keeps; ValueError where its tokenizer is another."""
    path, file = folder / CHAT, folder / TOKENIZER
    with files.reading(path, COPY):
        kept = files.read_json(path, SavedChat)
        there = os.path.lexists(file)
        if kept.tokenizer is None and not there:  # an old folder of bytes, or a file that is gone
            known = kept.opening is None and kept.template is None
            if not (known and _vocabulary(folder) in (None, ByteTokenizer().vocab_size)):
                raise ValueError(f"{file} is missing, for which {CHAT} was written")
        elif there == (kept.tokenizer == "bytes"):
            tells = f"{CHAT} tells of {'bytes' if there else 'a file'}"
            raise ValueError(f"{file} is {'there' if there else 'missing'}, though {tells}")
        elif kept.tokenizer is not None and there:
            files.check_digests(path, {TOKENIZER: kept.tokenizer})
        text = files.read_text(file, files.MOST_BYTES) if there else None
        tokenizer = ByteTokenizer() if text is None else BpeTokenizer.from_file(file)
        words = kept.words
        if kept.form:
            matching(tokenizer, kept.form)  # ValueError for none that is known
        if words is None and kept.opening is not None:
            before = (kept.opening,) if isinstance(kept.opening, str) else kept.opening
            words = words_after(matching(tokenizer, kept.form), before)
        chat = make_chat(tokenizer, kept.form, "", words)
    how = (kept.template, kept.date, kept.thinking, kept.tools, kept.system)
    return ChatTokenizer(chat, kept.form, text, *how)


def _vocabulary(folder: Path) -> int | None:
    """That of the model which the folder keeps, None where it keeps none."""
    file = folder / MODEL
    return files.read_json(file, SavedModel).vocab_size if os.path.lexists(file) else None


def _template(folder: Path) -> tuple[Path, str, dict[str, str]] | None:
    """The chat template of a model's folder, its file, and the names of tokens that it may use."""
    path, separate = (
        files.inside(folder, name) for name in ("tokenizer_config.json", "chat_template.jinja")
    )
    kept = TokenizerConfig()
    if os.path.lexists(path):
        kept = files.read_json(path, TokenizerConfig)
    names = {
        name: token.content if isinstance(token, Token) else token
        for name, token in vars(kept).items()
        if name.endswith("_token") and token
    }
    template = kept.chat_template
    if isinstance(template, list):
        template = next((t.template for t in template if t.name == "default"), None)
    if os.path.lexists(separate):
        return separate, files.read_text(separate, files.MOST_BYTES), names
    return None if template is None else (path, template, names)


def start(
    model: str,
    init_from: Path | None,
    tokenizer: Path | None,
    form: str,
    system: str,
    dtype: str,
    date: str = "",
    thinking: str = "",
    tools: Schemas = (),
) -> tuple[ChatTokenizer, ModelConfig, Transformer | None]:
    """What a run starts with: its conversation, the model's structure, and weights if not random.

    It tells of `tools`, a run's own too, which else stays as it is.

    `model` is a preset's name or else a folder saved by `transformers` (`./nano` is one, `nano` is
    not) or an id of Hugging Face; `init_from`, a run's folder or such a one, replaces it.
    """
    if init_from is None:
        named = model_folder(model)
        folder = named if named is not None and named.is_dir() else None
    else:
        folder = hub.local(init_from)
    tokenizer = None if tokenizer is None else hub.local(tokenizer, weights=False)
    if folder is not None and is_run(folder):
        given = {"tokenizer": tokenizer, "chat": form, "system": system, "thinking": thinking}
        for name, value in given.items():
            if value:
                raise ValueError(f"{name}={value}: {folder} has its own; leave the option out.")
        config, found = load_models(folder)
        config, first = lora.merge(config, jax.tree.map(lambda x: x[0], found))
        spoken = load_chat_tokenizer(folder / "policy")
        if tools and spoken.tools != tools:
            spoken = spoken.after(spoken.system, tools)
        return spoken, config, first
    if folder is None:
        spoken = chat_tokenizer(tokenizer, form, system, date, thinking, tools)
        return spoken, preset(model, spoken.tokenizer.vocab_size, dtype), None
    config = weights.read_config(folder)
    found = files.inside(folder, TOKENIZER)
    if tokenizer is None and not os.path.lexists(found):
        raise ValueError(f"{folder} has no tokenizer.json; give one with --tokenizer FILE.")
    spoken = chat_tokenizer(tokenizer or found, form, system, date, thinking, tools)
    if spoken.tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {spoken.tokenizer.vocab_size} tokens, the model in {folder} "
            f"{config.vocab_size}; give the tokenizer that the model was trained with."
        )
    return spoken, *weights.load(folder, param_dtype="float32", dtype=dtype, on_host=True)


def model_folder(model: str) -> Path | None:
    """The folder that an option names, whether it is there or not; None for a preset's name.

    Of an id of Hugging Face that in its cache.
    """
    return None if model in PRESETS or model in RELEASED else hub.local(Path(model))


def is_run(folder: Path) -> bool:
    """A run's folder, or one that is meant to be; not a model's, which has safetensors files."""
    if os.path.lexists(folder / "policy" / MODEL):
        return True
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds neither policy/model.json nor *.safetensors; give the folder of a "
            "finished run of a language agent, or one saved by transformers."
        )
    return False


def save_models(spoken: ChatTokenizer, config: ModelConfig, folder: Path, models: Any) -> None:
    """Weights of all seeds, the structure and the conversation, into `policy/`, all or nothing."""
    with files.whole_folder(folder / "policy") as partial:
        digests = {WEIGHTS: save_weights(partial / WEIGHTS, models)}
        spoken.save(partial)
        digests[CHAT] = files.digest_of(partial / CHAT)
        files.write_json(partial / MODEL, asdict(config) | {"digests": digests})


def check_saved(spoken: ChatTokenizer, config: ModelConfig) -> None:
    """ValueError for a conversation or a structure that could not be loaded again once saved."""
    for value in (spoken.saved("bytes"), SavedModel(**vars(config), digests={})):
        name = CHAT if isinstance(value, SavedChat) else MODEL
        read = files.parse_json(json.dumps(asdict(value)), name)
        if files.as_type(type(value), read, name) != value:
            raise ValueError(f"{name} would be loaded as another than {value}.")


def load_models(folder: Path) -> tuple[ModelConfig, Transformer]:
    """The models of all seeds of a run folder, leaves [K, ...]."""
    folder = folder / "policy"
    path = folder / WEIGHTS
    with files.reading(folder / MODEL, COPY):
        saved = files.read_json(folder / MODEL, SavedModel)
        config = ModelConfig(**{f.name: getattr(saved, f.name) for f in fields(ModelConfig)})
        leaves = read_weights(path)
        config.check_stored(sum(x.nbytes for x in leaves.values()), WEIGHTS)
    count = min((x.shape[0] if x.ndim else 0 for x in leaves.values()), default=0)

    def stacked():
        model = Transformer(config, nnx.Rngs(0))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), model)

    with files.reading(folder / MODEL, COPY):
        found = fill_leaves(jax.eval_shape(stacked), leaves, f"{path} with {MODEL}")
        files.check_digests(folder / MODEL, saved.digests or {})
    return config, jax.tree.map(jnp.asarray, found)
