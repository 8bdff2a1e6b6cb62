"""Files made to harm: what they name outside of their folder stays unread, and nothing hangs."""

import json
from collections.abc import Sequence
from typing import Any

from campaign.figures import Figures
from campaign.inputs import refused
from campaign.sandbox import Bad, Spoil, atime_tells
from campaign.shelf import Shelf
from campaign.spoiling import (
    SECRET,
    archive,
    array,
    config,
    edit,
    first,
    half,
    header,
    index,
    length,
    loop,
    pickled,
    pipe,
    template,
    tokenizer,
    write,
)

MODEL = "python -m train.sft --run-dir out --env language/GuessTheNumber-easy --model ./model "
MODEL += "--env-args turns=1 --algo.total-episodes 16 --algo.micro-batch 4 --eval-episodes 8"
DATA = "python -m train.sft --run-dir out --tokenizer tokenizer.json --data data.jsonl"
PLAY = "python -m train.evaluate --run run --episodes 8"
TALK = "python -m train.evaluate --run lm --episodes 8"
READ = "python -m train.transcripts --run lm"
EXPORT = "python -m train.export --run lm --out out"
DEEP = "[" * 100_000 + "]" * 100_000


def hostile(shelf: Shelf, cases: Sequence[Bad] | None = None, *, inside: bool = False) -> Figures:
    """Every file of the tables, or the cases; reads outside are seen by the times of access."""
    chosen = TABLE if cases is None else cases
    figures = refused("hostile files", shelf, chosen, inside=inside)
    seen = atime_tells(shelf.folder)
    figures.counts["watched for reads outside" if seen else "reads outside not seen"] = len(chosen)
    return figures


def model(name: str, spoil: Spoil, **options: Any) -> Bad:
    return Bad(name, MODEL, "model", spoil, never=SECRET, **options)


def conversation(**system: Any) -> str:
    said = [system, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return json.dumps({"messages": said}) + "\n"


MODELS = [
    model("an index that leads outside", index(lambda _: "../outside/secret.safetensors")),
    model("an index of absolute paths", index(lambda f: str(f / "outside/secret.safetensors"))),
    model("an index through its own folder", index(lambda _: "x/../../outside/secret.safetensors")),
    model("an index of lists", index(lambda _: [["a"]])),
    model("an index that is a list", write("model/model.safetensors.index.json", "[]")),
    model("an index nested deep", write("model/model.safetensors.index.json", DEEP)),
    model("an index of the folder", index(lambda _: ".")),
    model("a trillion layers", config(num_hidden_layers=10**12)),
    model("a trillion tokens", config(vocab_size=10**12)),
    model("a trillion positions", config(max_position_embeddings=10**12), codes=(0, 1, 2)),
    model("half a width", config(hidden_size=64.5)),
    model("no heads", config(num_attention_heads=0)),
    model("heads of a negative size", config(head_dim=-8)),
    model("a list of widths", config(hidden_size=[16])),
    model("an end that is an object", config(eos_token_id={"a": 1})),
    model("a type that is a list", config(model_type=["llama"])),
    model("a base that is NaN", config(rope_theta=float("nan"))),
    model("a config that is a list", write("model/config.json", "[1]")),
    model("a config nested deep", write("model/config.json", DEEP)),
    model("a config that is a pipe", pipe("model/config.json")),
    model("a config that links to itself", loop("model/config.json")),
    model("a header beyond the file", length(2**40)),
    model("a header of 2^63 bytes", length(2**63)),
    model("a header of nothing", length(0)),
    model("weights cut short", half("model/model.safetensors")),
    model("no weights", write("model/model.safetensors", "")),
    model("offsets beyond the file", header(lambda c: first(c).update(data_offsets=[0, 10**13]))),
    model("offsets that run back", header(lambda c: first(c).update(data_offsets=[64, 0]))),
    model("a shape of 10^13", header(lambda c: first(c).update(shape=[10**13]))),
    model("a negative shape", header(lambda c: first(c).update(shape=[-1, 4]))),
    model("weights that are a pipe", pipe("model/model.safetensors")),
    model("weights that link to themselves", loop("model/model.safetensors")),
]
TOKENIZERS = [
    model("a tokenizer nested deep", write("model/tokenizer.json", DEEP)),
    model("a tokenizer that is a pipe", pipe("model/tokenizer.json")),
    model("a tokenizer in Latin-1", write("model/tokenizer.json", b'{"model": "\xe9"}')),
    model("a tokenizer that is a list", write("model/tokenizer.json", "[]")),
    model("a token of number 10^12", tokenizer(lambda c: c["model"]["vocab"].update(zz=10**12))),
    model("a token of number -1", tokenizer(lambda c: c["model"]["vocab"].update(zz=-1))),
    model("a token of number 1.5", tokenizer(lambda c: c["model"]["vocab"].update(zz=1.5))),
    model("tokens that are a list", tokenizer(lambda c: c["model"].update(vocab=["a"]))),
    model("a merge of three", tokenizer(lambda c: c["model"]["merges"].append(["a", "b", "c"]))),
    model("a merge that is a number", tokenizer(lambda c: c["model"]["merges"].append(5))),
    model(
        "a special token without letters",
        tokenizer(lambda c: c["added_tokens"].append({"id": 300, "content": "", "special": True})),
    ),
    model("special tokens that are text", tokenizer(lambda c: c.update(added_tokens=["<a>"]))),
    model("a normalizer that is a number", tokenizer(lambda c: c.update(normalizer=5))),
    model("a template that is a number", template(5)),
    model(
        "a template of nested loops",
        template(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
            "{% endfor %}{% endfor %}{% endfor %}"
        ),
    ),
    model("a template of long texts", template("{% set x = 'a' * 999999999 %}{{ x ~ x ~ x ~ x }}")),
    model(
        "a template that calls itself", template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")
    ),
    model(
        "a template that reaches for Python",
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    ),
    model("a template that includes", template("{% include '../outside/secret.txt' %}")),
    model("a template with an error", template("{% for %}")),
    model("a template of unknown names", template("{{ unknown.name }}")),
    model("a template of unknown functions", template("{{ strftime_later('%Y') }}")),
    model("a template of large powers", template("{{ 9 ** 9 ** 9 }}")),
    model("a template file that is a pipe", pipe("model/chat_template.jinja")),
    model(
        "names that are numbers",
        edit(
            "model/tokenizer_config.json",
            lambda c: c.update(eos_token=5, chat_template="{{ eos_token }}"),
        ),
    ),
]
RUNS = [
    Bad(
        "weights of 10^13 numbers",
        PLAY,
        "run",
        archive("run/policy/weights.npz", "x.npy", array("(10000000000000,)")),
    ),
    Bad(
        "weights that unfold to 2 GiB",
        PLAY,
        "run",
        archive("run/policy/weights.npz", "x.npy", array("(536870912,)", bytes(2**31))),
    ),
    Bad(
        "weights that run a command",
        PLAY,
        "run",
        archive("run/policy/weights.npz", "x.npy", pickled),
    ),
    Bad(
        "weights outside of the archive",
        PLAY,
        "run",
        archive("run/policy/weights.npz", "../../x.npy", array("(1,)", bytes(4))),
    ),
    Bad(
        "weights of 10^13 numbers of language",
        TALK,
        "lm",
        archive("lm/policy/weights.npz", "x.npy", array("(10000000000000,)")),
    ),
    Bad(
        "weights without a seed",
        TALK,
        "lm",
        archive("lm/policy/weights.npz", "x.npy", array("()", bytes(4))),
    ),
    Bad("weights cut short in a run", PLAY, "run", half("run/policy/weights.npz")),
    Bad(
        "a policy with an unknown field",
        PLAY,
        "run",
        edit("run/policy/policy.json", lambda c: c.update(more=1)),
    ),
    Bad("a policy that is a list", PLAY, "run", write("run/policy/policy.json", "[]")),
    Bad("a policy nested deep", PLAY, "run", write("run/policy/policy.json", DEEP)),
    Bad("a policy that is a pipe", PLAY, "run", pipe("run/policy/policy.json")),
    Bad(
        "a policy of 10^12 seeds",
        PLAY,
        "run",
        edit("run/policy/policy.json", lambda c: c.update(num_seeds=10**12)),
    ),
    Bad("a model that is a list", TALK, "lm", write("lm/policy/model.json", "[]")),
    Bad(
        "a model of a trillion layers",
        TALK,
        "lm",
        edit("lm/policy/model.json", lambda c: c.update(num_layers=10**12)),
    ),
    Bad(
        "a model with an unknown field",
        EXPORT,
        "lm",
        edit("lm/policy/model.json", lambda c: c.update(more=1)),
    ),
    Bad("a conversation that is a number", TALK, "lm", write("lm/policy/chat.json", "5")),
    Bad(
        "a conversation with a form that is a list",
        EXPORT,
        "lm",
        edit("lm/policy/chat.json", lambda c: c.update(form=[1])),
    ),
    Bad(
        "sums that are a list",
        "python -m train.ppo --resume run",
        "run",
        lambda folder: [
            (path / "sha256.json").write_text("[]")
            for path in (folder / "run/checkpoints").iterdir()
        ],
    ),
    Bad(
        "metrics that are a pipe",
        "python -m train.ppo --resume run",
        "run",
        pipe("run/metrics.jsonl"),
    ),
    Bad(
        "metrics nested deep",
        "python -m train.ppo --resume run",
        "run",
        write("run/metrics.jsonl", DEEP + "\n"),
        codes=(0,),
        writes=True,
        says="lacks the lines of iterations",
    ),
    Bad("transcripts that are a pipe", READ, "lm", pipe("lm/transcripts.jsonl")),
    Bad("transcripts that are numbers", READ, "lm", write("lm/transcripts.jsonl", "5\n")),
    Bad(
        "transcripts with escapes",
        READ,
        "lm",
        write(
            "lm/transcripts.jsonl",
            json.dumps(
                {
                    "iteration": 1,
                    "env_episodes": 1,
                    "seed": 0,
                    "prompt": 0,
                    "sample": 0,
                    "return": 1.0,
                    "turns": [
                        {
                            "observation": "\x1b[2J",
                            "response": "\x1b]0;x\x07",
                            "reward": 0.0,
                            "cut": False,
                        }
                    ],
                    "metrics": {},
                    "ended": "terminated",
                }
            )
            + "\n",
        ),
        codes=(0,),
    ),
]
TEXTS = [
    Bad("data nested deep", DATA, spoil=write("data.jsonl", DEEP + "\n")),
    Bad("data that is a pipe", DATA, spoil=pipe("data.jsonl")),
    Bad("data that links to itself", DATA, spoil=loop("data.jsonl")),
    Bad("data in Latin-1", DATA, spoil=write("data.jsonl", b'{"messages": "\xe9"}\n')),
    Bad(
        "half a surrogate",
        DATA,
        spoil=write("data.jsonl", conversation(role="system", content="\ud800")),
    ),
    Bad(
        "a role that is a list",
        DATA,
        spoil=write("data.jsonl", conversation(role=["system"], content="a")),
    ),
    Bad(
        "a text that is a number",
        DATA,
        spoil=write("data.jsonl", conversation(role="system", content=1)),
    ),
    Bad("a number that is too long", DATA, spoil=write("data.jsonl", "9" * 10_000 + "\n")),
    Bad("data of nothing", DATA, spoil=write("data.jsonl", "\n\n")),
    Bad("data of zeros", DATA, spoil=write("data.jsonl", bytes(1 << 20))),
]
TABLE = [*MODELS, *TOKENIZERS, *RUNS, *TEXTS]
