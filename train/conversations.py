"""A page of a language agent's episodes: who said what, tools, rewards and endings; no script."""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import jax

from jaxrl import memory
from jaxrl.files import reason_of, write_text
from jaxrl.lm.learn.sizes import evaluation_parts
from jaxrl.lm.play.transcribe import Transcriber
from jaxrl.text.calls import CLOSING, OPENING
from jaxrl.train import again, evaluate, fresh

# What is set apart in a text: calls and results of tools, and thoughts.
PARTS = re.compile(
    f"(?P<call>{OPENING}.*?(?:{CLOSING}|$))"
    "|(?P<result><tool_response>.*?(?:</tool_response>|$))"
    "|(?P<thought><think>.*?(?:</think>|$))",
    re.DOTALL,
)
NAMES = {"call": "calls a tool", "result": "the tool answers", "thought": "thinks"}
ENDINGS = {
    "terminated": "terminated: the task was over",
    "truncated": "truncated: a limit on turns or on length came first",
}


def watch(args: Any, options: Any) -> Path:
    """Writes the page of a language agent's run; ValueError where there is nothing to show."""
    out = args.out or args.run / "watch.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"out={out}: conversations become a page; try watch.html.")
    if args.seed_index >= options.num_members:
        raise ValueError(
            f"seed_index={args.seed_index} must lie in [0, {options.num_members - 1}]; try 0."
        )
    chosen = best_and_worst(args, options) if args.iteration is None else [training(args, options)]
    for title, episode in chosen:
        print(f"{title}: return {number(episode['return'])}, {episode['ended']}")
    try:
        write_text(out, page(f"{options.env}, {args.run.name}", chosen))
    except OSError as error:
        raise ValueError(f"out={out} cannot be written: {reason_of(error)}; try another.") from None
    print(f"{out}: {out.stat().st_size:,} bytes")
    return out


def best_and_worst(args: Any, options: Any) -> list[tuple[str, dict[str, Any]]]:
    """The best, median and worst of fresh episodes, those that `train.evaluate` plays."""
    how = {"episodes": args.episodes, "greedy": args.greedy, "seed": args.seed}
    players = evaluate.of_run(evaluate.Args(run=args.run, **how), options)
    one = slice(args.seed_index, args.seed_index + 1)
    models, members = jax.tree.map(lambda x: x[one], (players.models, players.members))
    agent, lines = players.agent, list[dict[str, Any]]()
    env = agent.env.held_out
    count = fresh.num_prompts(env, args.episodes)
    memory.check(evaluation_parts(agent, fresh.lanes(agent), count), 1, jax.devices()[:1])
    write = Transcriber(agent.chat.tokenizer, 1)
    way = fresh.Way(1, args.greedy, held_out=True, kept=count)

    def keep(shown: Any, first: int) -> None:
        lines.extend(write(shown, 0, 0, args.seed, first))

    fresh.play(models, members, args.episodes, agent, way, keep)
    lines.sort(key=lambda line: line["return"] if line["return"] is not None else float("-inf"))
    count = len(lines)
    if count == 1:
        return [("the episode", lines[0])]
    shown = {"best": -1, "median": (count - 1) // 2, "worst": 0}
    if count == 2:
        del shown["median"]
    return [(f"{name} of {count}", lines[place]) for name, place in shown.items()]


def training(args: Any, options: Any) -> tuple[str, dict[str, Any]]:
    """One of the episodes that training kept of an iteration."""
    it = again.reach(args.run, args.iteration, devices=args.devices)
    assert it.task.shown is not None and it.task.transcribe is not None
    shown = jax.device_get(it.task.shown(it.after))
    lines = it.task.transcribe(shown, args.iteration, 0, 0)
    lines = [line for line in lines if line["seed"] == args.seed_index]
    if args.env_index >= len(lines):
        kept = f"[0, {len(lines) - 1}], of the episodes that are kept; try 0"
        none = f"-: iteration {args.iteration} played none; try a later one"
        raise ValueError(f"env_index={args.env_index} must lie in {kept if lines else none}.")
    return f"iteration {args.iteration}, episode {args.env_index}", lines[args.env_index]


def page(title: str, episodes: list[tuple[str, dict[str, Any]]]) -> str:
    """The whole page; every text in it is escaped."""
    links = "".join(
        f'<a href="#e{i}">{escape(name)} <b>{number(one["return"])}</b></a>'
        for i, (name, one) in enumerate(episodes)
    )
    body = "".join(_episode(f"e{i}", *row) for i, row in enumerate(episodes))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f"<header><h1>{escape(title)}</h1><nav>{links}</nav></header><main>{body}</main></html>\n"
    )


def _episode(anchor: str, name: str, episode: dict[str, Any]) -> str:
    good = " good" if (episode["metrics"].get("success") or 0) > 0 else ""
    facts = "".join(
        f"<li>{escape(metric)} <b>{number(value)}</b>"
        for metric, value in episode["metrics"].items()
    )
    turns = "".join(_turns(episode["turns"]))
    return (
        f'<section id="{anchor}"><h2>{escape(name)}</h2><p class="sum{good}">return '
        f"<b>{number(episode['return'])}</b></p>{turns}"
        f'<p class="end {episode["ended"]}">{ENDINGS[episode["ended"]]}</p>'
        f'<ul class="facts">{facts}</ul></section>'
    )


def _turns(turns: list[dict[str, Any]]) -> Iterator[str]:
    called = False
    for i, turn in enumerate(turns, 1):
        if turn["observation"].strip():
            told = _parts(turn["observation"], "result" if called else "")
            name = "" if called else "<h3>environment</h3>"  # a tool's box has a name
            yield f'<div class="env">{name}{told}</div>'
        response = turn["response"]
        # a response that begins like an object is a call as a whole (Llama's form)
        called = OPENING in response or response.lstrip().startswith("{")
        said = _parts(response, "call" if called and OPENING not in response else "")
        cut = '<p class="cut">cut by the length limit</p>' if turn["cut"] else ""
        paid = turn["reward"]
        sign = "" if not paid else " good" if paid > 0 else " bad"
        yield (
            f'<div class="agent"><h3>agent, turn {i}</h3>{said}{cut}'
            f'<p class="reward{sign}">reward <b>{number(paid)}</b></p></div>'
        )


def _parts(text: str, whole: str) -> str:
    """A text with what is set apart in boxes of their own; `whole` says that all of it is."""
    if whole and not PARTS.search(text):
        return _box(whole, text)
    parts, end = list[str](), 0
    for found in PARTS.finditer(text):
        parts += [_plain(text[end : found.start()]), _box(str(found.lastgroup), found.group())]
        end = found.end()
    return "".join([*parts, _plain(text[end:])]) or _plain(" ")


def _plain(text: str) -> str:
    return f"<pre>{escape(text.strip())}</pre>" if text.strip() else ""


def _box(kind: str, text: str) -> str:
    inner = re.sub("^<[a-z_]+>|</[a-z_]+>$", "", text.strip()).strip()
    return f'<div class="{kind}"><h4>{NAMES[kind]}</h4><pre>{escape(inner)}</pre></div>'


def number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#23262d;--soft:#6a6d75;--line:#dcdad3;
--env:#efede6;--agent:#e2eef7;--call:#fff3d6;--result:#e3f2ea;--good:#00734f;--bad:#b04a00}
@media(prefers-color-scheme:dark){:root{--paper:#16181d;--ink:#e7e6e1;--soft:#9a9da6;
--line:#353841;--env:#22252c;--agent:#1c2d3b;--call:#3a301a;--result:#1b3028;--good:#5fd0a4;
--bad:#ff9d5c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
header{position:sticky;top:0;background:var(--paper);border-bottom:1px solid var(--line);
padding:.6rem 1rem;z-index:1}
h1{font-size:1.05rem;margin:0;overflow-wrap:anywhere}
nav{display:flex;gap:.3rem 1.2rem;flex-wrap:wrap}nav a{color:inherit}
main{max-width:52rem;margin:0 auto;padding:0 1rem 4rem}
section{scroll-margin-top:6rem;padding-top:1rem}
h2{font-size:1.3rem;margin:1rem 0 0}h2::first-letter{text-transform:uppercase}
h3,h4{font-size:.78rem;margin:0 0 .2rem;color:var(--soft);font-weight:600}
pre{margin:.2rem 0;white-space:pre-wrap;overflow-wrap:anywhere;
font:.92rem/1.5 ui-monospace,monospace}
.env,.agent{border-radius:.7rem;padding:.6rem .8rem;margin:.7rem 0;width:fit-content;
max-width:92%;min-width:0}
.env{background:var(--env)}.agent{background:var(--agent);margin-left:auto}
.call,.result,.thought{border-left:4px solid var(--soft);border-radius:.3rem;padding:.4rem .6rem;
margin:.4rem 0}
.call{background:var(--call);border-color:#e69f00}.result{background:var(--result);
border-color:#009e73}.thought{opacity:.75;font-style:italic}
.reward,.cut,.sum,.end{margin:.3rem 0 0;font-size:.88rem;color:var(--soft)}
.reward{text-align:right}.good b{color:var(--good)}.bad b,.cut{color:var(--bad)}
.end{border-top:2px solid var(--line);padding-top:.5rem;margin-top:1rem;font-weight:600}
.truncated{color:var(--bad)}
.facts{list-style:none;padding:0;margin:.3rem 0 1.5rem;display:flex;flex-wrap:wrap;
gap:.2rem 1rem;font-size:.85rem;color:var(--soft)}
.facts b{color:var(--ink)}
"""
