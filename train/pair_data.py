"""Preferences from a JSONL file as token sequences: pairs of responses, or judged ones.

A line of pairs is {"prompt": ..., "chosen": ..., "rejected": ..., "margin": 0.5}, the margin as you
like. The prompt is a text, or messages of which the last is a user's; the two responses are texts
or messages. Without a prompt it is what they have in common: whole messages, or whole words. Other
fields, as ids and scores, are not read.
"""

import math
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl.files import parse_json
from jaxrl.lm.folders import ChatTokenizer
from jaxrl.lm.host_chat import HostChat
from jaxrl.lm.learn import MARGIN
from jaxrl.lm.play.episodes import Episodes
from jaxrl.text.chat import short
from jaxrl.train.chat_data import (
    Message,
    Row,
    check_turns,
    conversation,
    message_of,
    read_lines,
    record_of,
    refuse_meaning,
)

NEEDED = 'an object with "chosen" and "rejected" is needed, both texts or both messages, not empty.'


def read(path: Path, tokenizer: ChatTokenizer) -> Episodes:
    """All pairs of a file: rows 2i and 2i + 1 are the chosen and the rejected one of a pair.

    The chosen one has the return 1, the other 0. ValueError with the line's number for the first
    that is broken; nothing is half-read.
    """
    host = HostChat(tokenizer)

    def one(line: str) -> tuple[Row, Row, float]:
        prompt, responses, margin = pair(line)
        chosen, rejected = (answered(host, prompt, response) for response in responses)
        if chosen[0] == rejected[0]:
            raise ValueError(
                f"chosen and rejected are the same, {short(responses[0][0][1], 40)}; leave the "
                "line out."
            )
        return chosen, rejected, margin

    found = [pair for _, pair in read_lines(path, one)]
    rows = [row for chosen, rejected, _ in found for row in (chosen, rejected)]
    margin = np.repeat(np.array([margin for *_, margin in found], np.float32), 2)
    return with_starts(record_of(rows)).replace(
        reward=jnp.asarray(np.arange(len(rows))[:, None] % 2 == 0, jnp.float32),
        metrics={MARGIN: jnp.asarray(margin)},
    )


def read_judged(path: Path, tokenizer: ChatTokenizer) -> Episodes:
    """All responses of a file, of which the good ones have the return 1 and the others 0.

    A line is {"prompt": ..., "completion": ..., "label": true}. ValueError as for `read`.
    """
    host = HostChat(tokenizer)

    def one(line: str) -> tuple[Row, bool]:
        prompt, response, label = judged(line)
        return answered(host, prompt, response), label

    found = [judged for _, judged in read_lines(path, one)]
    label = np.array([[label] for _, label in found], np.float32)
    return with_starts(record_of([row for row, _ in found])).replace(reward=jnp.asarray(label))


def judged(line: str) -> tuple[list[Message], list[Message], bool]:
    """(prompt, response, whether it is good) of a line; ValueError that says what is wrong."""
    entry = parse_json(line, "it")
    fields = ("prompt", "completion", "label")
    if not isinstance(entry, dict) or any(x not in entry for x in fields):
        raise ValueError('an object with "prompt", "completion" and "label" is needed.')
    refuse_meaning(entry)
    label, response = entry["label"], entry["completion"]
    if not isinstance(label, bool):
        raise ValueError(f"label={short(label)} must be true or false.")
    if not isinstance(response, str | list) or not response:
        raise ValueError(f"completion={short(response)} is neither a text nor messages.")
    before = prompt_of(entry["prompt"])
    if isinstance(response, str):
        return before, [("assistant", response)], label
    return before, after_prompt(before, messages_of(response, "completion"), "completion"), label


def with_starts(record: Episodes) -> Episodes:
    """With room for the longest of the prompts, and after it for the longest response."""
    start = np.asarray(record.start)
    first, rest = int(start.max()), int((np.asarray(record.length) - start).max())
    wider = [(0, 0), (0, first + rest - record.token.shape[1])]
    return record.replace(first=first, **{x: jnp.pad(getattr(record, x), wider) for x in OF_TOKENS})


OF_TOKENS = ("token", "action", "turn", "log_prob")


def pair(line: str) -> tuple[list[Message], list[list[Message]], float]:
    """(prompt, [chosen, rejected], margin) of a line; ValueError that says what is wrong."""
    entry = parse_json(line, "it")
    responses = [entry.get(x) for x in ("chosen", "rejected")] if isinstance(entry, dict) else []
    kind = type(responses[0]) if responses else None
    if kind not in (str, list) or any(type(x) is not kind or not x for x in responses):
        raise ValueError(NEEDED)
    refuse_meaning(entry)
    margin = entry.get("margin", 0.0)
    if type(margin) not in (int, float) or not math.isfinite(margin) or abs(margin) > 1e6:
        raise ValueError(f"margin={short(margin)} must be a finite number; try 0.5.")
    prompt, responses = split(entry.get("prompt"), responses)
    return prompt, responses, float(margin)


def split(prompt: Any, responses: list[Any]) -> tuple[list[Message], list[list[Message]]]:
    """The prompt as messages, and what each response says after it."""
    of_texts = isinstance(responses[0], str)
    if of_texts and prompt is None:
        prompt = common_words(*responses)
        responses = [response[len(prompt) :] for response in responses]
    names = ("chosen", "rejected")
    told = [
        [("assistant", x)] if of_texts else messages_of(x, name)
        for name, x in zip(names, responses, strict=True)
    ]
    if not of_texts and prompt is None:
        same = takewhile(lambda both: both[0] == both[1], zip(*told, strict=False))
        before = [message for message, _ in same]
        while before and before[-1][0] != "user":
            before.pop()
        if not before:
            raise ValueError(NO_PROMPT)
    else:
        before = prompt_of(prompt)
    return before, [after_prompt(before, *x) for x in zip(told, names, strict=True)]


def after_prompt(before: list[Message], said: list[Message], name: str) -> list[Message]:
    """What a response says after a prompt, with which it may begin."""
    after = said[len(before) :] if said[: len(before)] == before else said
    if not after or after[0][0] != "assistant" or after[-1][0] != "assistant":
        raise ValueError(f"{name} must be an assistant's answer to the prompt.")
    check_turns([*before, *after])
    return after


NO_PROMPT = 'chosen and rejected have no common prompt, with which both begin; give it as "prompt".'


def common_words(chosen: str, rejected: str) -> str:
    """The words with which both texts begin, and a space."""
    words = zip(chosen.split(" ")[:-1], rejected.split(" ")[:-1], strict=False)
    same = "".join(f"{word} " for word, _ in takewhile(lambda both: both[0] == both[1], words))
    if not same.strip():
        raise ValueError(NO_PROMPT)
    return same


def prompt_of(prompt: Any) -> list[Message]:
    """A given prompt as messages, the last of which is a user's."""
    found = messages_of(prompt, "prompt") if isinstance(prompt, list) else [("user", prompt)]
    if not isinstance(found[0][1], str) or not found[-1][1]:
        raise ValueError(f"prompt={short(prompt)} is neither a text nor a list of messages.")
    if found[-1][0] != "user":
        raise ValueError(f"the prompt's last message is {short(found[-1][0])}, not 'user'.")
    return found


def messages_of(found: Any, name: str) -> list[Message]:
    """Messages that stand in a list which is not empty."""
    if not found:
        raise ValueError(f"{name} is empty; give a text or messages.")
    return [message_of(message, f"message {i} of {name}") for i, message in enumerate(found)]


def answered(host: HostChat, prompt: list[Message], response: list[Message]) -> Row:
    """The tokens of a prompt and a response, of which the response's are learned."""
    start = len(conversation(host, prompt)[0])
    tokens, action = conversation(host, [*prompt, *response])
    return tokens, [False] * start + action[start:]
