"""Conversations to tokens on the host, with the pieces that `Chat` has inside jit."""

import json
from functools import cached_property, lru_cache
from typing import Any

import jax

from jaxrl.lm.folders import ChatTokenizer
from jaxrl.text.added_tokens import is_control
from jaxrl.text.chat import Piece, make_piece, short
from jaxrl.text.tokens import lacks


class HostChat:
    """Texts of any length and language, where `Chat` has a compiled program for each size."""

    def __init__(self, tokenizer: ChatTokenizer):
        self.tokenizer, self.chat = tokenizer, tokenizer.chat
        self.library: Any = None
        if tokenizer.tokenizer_json is not None:
            special = tuple(self.chat.tokenizer.special.items())
            self.library = _library(tokenizer.tokenizer_json, special)

    def text(self, text: str) -> list[int]:
        """Tokens of plain text."""
        if self.library is None:
            return list(text.encode())
        if reason := lacks(self.chat.tokenizer, text):
            raise ValueError(f"{short(text)} cannot be read: {reason}; leave it out.")
        ids = self.library.encode(text, add_special_tokens=False).ids
        if not self.chat.tokenizer.control.isdisjoint(ids):
            raise ValueError(f"the tokenizer reads a special token in {short(text)}.")
        return ids

    @cached_property
    def words(self) -> list[bytes]:
        """What each token says, an unknown one last."""
        data, offset, size = jax.tree.leaves(jax.device_get(self.chat.tokenizer.spelling))
        whole = data.tobytes()
        return [whole[at : at + n] for at, n in zip(offset.tolist(), size.tolist(), strict=True)]

    def opening(self, system: str) -> Piece:
        """What stands around the first user's text after this system message."""
        words = self.tokenizer.words_with(system)
        return make_piece(self.chat.tokenizer, words.opening, words.reply, self.text)

    def user(self, piece: Piece, text: str) -> list[int]:
        """A user's text with what stands around it, up to the response."""
        text = text.strip() if self.chat.words.strips else text
        return [*piece.before, *self.text(piece.prefix + text + piece.suffix), *piece.after]

    def response(self, text: str) -> list[int]:
        """An assistant's turn, its end of turn included.

        ValueError where it has thoughts of its own and the words before it have begun others.
        """
        words = self.chat.words
        text = (text.strip() if words.strips_reply else text).removeprefix(words.begun)
        begins = next(iter(words.begun.split()), "")
        if begins and text.lstrip().startswith(begins):
            raise ValueError(
                f"a response begins with {short(text, 40)}, where the chat template has written "
                f"{words.begun!r} already; leave --thinking out."
            )
        return [*self.text(text), self.chat.end_of_turn]


@lru_cache(maxsize=1)  # a tokenizer.json of tens of megabytes takes seconds
def _library(tokenizer_json: str, special: tuple[tuple[str, int], ...]) -> Any:
    """The library's tokenizer, which reads as plain text what that inside jit does."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "texts of conversations need tokenizers: pip install 'jaxrl[hf]'"
        ) from None
    file = json.loads(tokenizer_json)
    for entry in file.get("added_tokens") or []:
        entry["special"] = is_control(entry)
    try:
        library = Tokenizer.from_str(json.dumps(file))
    except Exception as error:  # the library has no class of its own for it
        raise ValueError(f"the library tokenizers refuses the tokenizer: {error}") from None
    library.encode_special_tokens = True
    for name, index in special:
        if library.token_to_id(name) != index:
            raise ValueError(
                f"tokenizer.json gives {name!r} the id {index}, the library tokenizers another "
                f"({library.token_to_id(name)}); number added tokens on from the vocabulary's end."
            )
    return library
