"""`train.export`: a folder that loads, here and elsewhere, or none at all."""

import json
from dataclasses import replace
from datetime import date

import agents
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizer_files
from flax import nnx
from tokenizers import Tokenizer

from jaxrl.lm import Transformer, folders
from jaxrl.policy import named_leaves
from jaxrl.text.jinja import render
from train.export import Args, export


def saved(folder, chat_tokenizer):
    """A run's folder of two seeds, as the host loop leaves it."""
    cfg = replace(agents.MODEL, vocab_size=max(260, chat_tokenizer.tokenizer.vocab_size))
    pair = [Transformer(cfg, nnx.Rngs(seed)) for seed in (0, 1)]
    folders.save_models(chat_tokenizer, cfg, folder, jax.tree.map(lambda *x: jnp.stack(x), *pair))
    return pair


@pytest.mark.parametrize(("kind", "form"), [(None, ""), ("qwen2", "chatml")])
def test_what_is_exported_starts_another_run_with_the_same_weights_and_words(tmp_path, kind, form):
    file = None if kind is None else tokenizer_files.file(kind)
    tokenizer = folders.chat_tokenizer(file, form)
    pair = saved(tmp_path / "run", tokenizer)
    out = tmp_path / "made" / "out"
    export(Args(tmp_path / "run", out, seed_index=1))
    again, cfg, weights = folders.start(str(out), None, None, "", "", "float32")
    for name, x in named_leaves(weights).items():
        np.testing.assert_array_equal(x, named_leaves(pair[1])[name])
    assert cfg.end_ids == (tokenizer.chat.end_of_turn,)
    assert again.chat.first_piece == tokenizer.chat.first_piece
    assert again.chat.end_of_turn == tokenizer.chat.end_of_turn
    theirs = Tokenizer.from_file(str(out / "tokenizer.json"))
    about = json.loads((out / "tokenizer_config.json").read_text())
    (words,) = render(about["chat_template"], [[("user", "Guess 1, or 2.")]], {})
    first = jax.jit(tokenizer.chat.first, static_argnums=1)(agents.literal("Guess 1, or 2."), 64)
    assert theirs.encode(words, add_special_tokens=False).ids == first.ids[: first.length].tolist()
    assert theirs.token_to_id(about["eos_token"]) == tokenizer.chat.end_of_turn


THINKS = """{% for message in messages %}
{%- if message.role == 'system' %}<|im_start|>system
Of {{ strftime_now('%Y-%m-%d') }}. {{ message.content | trim }}<|im_end|>
{% elif message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% else %}<|im_start|>assistant
{{ message.content.split('</think>')[-1] }}<|im_end|>
{% endif %}{% endfor %}<|im_start|>assistant
{{ '<think></think>' if enable_thinking is defined and not enable_thinking }}"""
TOLD = [{}, {"system": " Be br\u00fcf. \U0001f600"}, {"thinking": "off"}]
TOLD += [{"system": "Hi", "thinking": "on"}, {"date": "2024-07-26"}]


@pytest.mark.parametrize("told", TOLD)
def test_what_a_run_was_told_stays_where_its_model_has_a_template(told, tmp_path):
    template = "{{ strftime_now('%Y-%m-%d') }}" * ("date" in told) + THINKS
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer_files.file("qwen2").read_text())
    (tmp_path / "chat_template.jinja").write_text(template)
    tokenizer = folders.chat_tokenizer(file, **({"date": "2024-07-26"} | told))
    saved(tmp_path / "run", tokenizer)
    export(Args(tmp_path / "run", tmp_path / "out"))
    again = folders.chat_tokenizer(tmp_path / "out")
    mine = tokenizer.chat.words
    kept = replace(mine, opening=("".join(mine.opening),))
    assert again.chat.words == (replace(kept, drops=False) if told else kept)
    assert again.chat.first_piece.suffix == tokenizer.chat.first_piece.suffix
    about = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (about["chat_template"] == THINKS) == (not told)
    other = again.words_with("Other.").opening
    start = "2024-07-26" * ("date" in told) + "<|im_start|>system\nOf "
    day = "2024-07-26" if told else date.today().isoformat()
    assert other == (f"{start}{day}. ", "Other.", "<|im_end|>\n<|im_start|>user\n")


def test_a_bytes_model_says_any_text_in_the_tokens_it_was_trained_with(tmp_path):
    saved(tmp_path / "run", folders.chat_tokenizer(None))
    export(Args(tmp_path / "run", tmp_path / "out"))
    theirs = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "Größe <|assistant|>\n\t "
    ids = theirs.encode(text, add_special_tokens=False).ids
    before, _, after = text.partition("<|assistant|>")
    assert ids == [*before.encode(), 258, *after.encode()]
    assert theirs.decode(ids, skip_special_tokens=False) == text


def test_a_broken_run_leaves_no_half_folder_behind(tmp_path):
    saved(tmp_path / "run", folders.chat_tokenizer(None))
    chat = tmp_path / "run" / "policy" / "chat.json"
    whole = chat.read_text()
    chat.write_text(whole[:-9])
    with pytest.raises(
        ValueError, match=r"chat\.json is not what was written, of which model"
    ) as error:
        export(Args(tmp_path / "run", tmp_path / "out"))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    chat.write_text(whole)
    with pytest.raises(ValueError, match=r"seed_index=2 must lie in \[0, 1\]"):
        export(Args(tmp_path / "run", tmp_path / "out", seed_index=2))
    export(Args(tmp_path / "run", tmp_path / "out"))
    with pytest.raises(ValueError, match="is not empty; choose another folder"):
        export(Args(tmp_path / "run", tmp_path / "out"))


def test_a_failure_while_writing_leaves_nothing_either(tmp_path, monkeypatch):
    saved(tmp_path / "run", folders.chat_tokenizer(None))
    monkeypatch.setattr("jaxrl.train.export.save_tokenizer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(Args(tmp_path / "run", tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_presets_name_is_the_preset_whatever_lies_in_the_working_directory(tmp_path, monkeypatch):
    saved(tmp_path / "nano", folders.chat_tokenizer(None))
    monkeypatch.chdir(tmp_path)
    _, cfg, weights = folders.start("nano", None, None, "", "", "float32")
    assert weights is None and cfg.width == 64
    _, cfg, weights = folders.start("./nano", None, None, "", "", "float32")
    assert weights is not None and cfg.width == agents.MODEL.width
