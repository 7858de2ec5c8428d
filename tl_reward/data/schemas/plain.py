"""Rows that hold `chosen` and `rejected`, beside a prompt of whatever name."""

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from tl_reward.data.messages import MESSAGES_AS_TEXT, BadPair, has_turns, printable
from tl_reward.data.schemas.form import Comparison, LeftOut, Read, Row, is_missing
from tl_reward.errors import InputError

# Where a row has no `prompt`, its question may be under one of these.
PROMPT_KEYS = ("question", "instruction", "input", "conversations")
_OPENED = re.compile(r"\s*(Human|Assistant):")


def chosen_and_rejected(row: Row) -> Read:
    yield _comparison(row, row["chosen"], row["rejected"])


def distilabel(row: Row) -> Read:
    """Answers that a judge has rated once more: where it found neither better, which one is called chosen says nothing."""
    if row.get("status") == "tie":
        yield LeftOut("the status of the row is tie")
    else:
        yield from chosen_and_rejected(row)


def named_responses(row: Row) -> Read:
    yield _comparison(row, row["chosen_response"], row["rejected_response"])


def _comparison(row: Row, chosen: Any, rejected: Any) -> Comparison:
    if not is_missing(row.get("history")) and row["history"]:
        raise InputError("history holds turns before the prompt, which are not read: put all turns into one list of messages")
    named = [key for key in (chosen, rejected) if isinstance(key, str) and key in row]
    if len(named) == 2:
        raise InputError(f"the sides are the names of columns ({' and '.join(named)}), and no answers: make them of these first")
    chosen, rejected = _side(chosen), _side(rejected)
    prompt = row.get("prompt")
    if is_missing(prompt) and not _is_whole(chosen) and not _is_whole(rejected):
        prompt = _question(row)
        if prompt is None and _are_answers(chosen, rejected):
            raise _without_prompt(row)
    return Comparison(prompt, chosen, rejected, system=row.get("system"))


def _side(value: Any) -> Any:
    """A single message is a list of one: ShareGPT's rows have {from, value} on each side."""
    return [value] if isinstance(value, Mapping) and ("role" in value or "from" in value) else value


def _is_whole(side: Any) -> bool:
    """Whether a side holds the prompt: a transcript, or messages that do not begin with the answer."""
    if isinstance(side, str):
        return has_turns(side)
    first = side[0] if isinstance(side, (list, tuple)) and side else None
    if isinstance(first, tuple):
        return first[0] != "assistant"
    return isinstance(first, Mapping) and first.get("role", first.get("from")) not in ("assistant", "gpt")


def _are_answers(*sides: Any) -> bool:
    """Whether sides that are not whole hold an answer each; and are not empty, which is said first."""
    texts = [side for side in sides if isinstance(side, str)]
    return all(sides) and all(text.strip() and not _OPENED.match(text) and not MESSAGES_AS_TEXT.match(text) for text in texts)


def _without_prompt(row: Row) -> InputError:
    if "prompt" in row:
        return BadPair("prompt is empty", "the prompt is empty")
    others = [
        str(key) for key, value in row.items() if isinstance(value, str) and key not in ("chosen", "rejected", "id", "subset", "split")
    ]
    near = difflib.get_close_matches("prompt", [key.casefold() for key in others], n=1, cutoff=0.6)
    meant = next((key for key in others if near and key.casefold() == near[0]), others[0] if len(others) == 1 else None)
    said = json.dumps(printable(meant)[:60], ensure_ascii=False) if meant else "…"
    return InputError(
        f"no prompt: found {printable(', '.join(map(str, row)))[:120]}; chosen and rejected are answers alone (whole transcripts must open "
        f"with '\\n\\nHuman:'), and their prompt is read from one of prompt, {', '.join(PROMPT_KEYS)}; a column of another name: "
        f'columns={{"prompt": {said}}}'
    )


def _question(row: Row) -> Any:
    """The prompt of a row that calls it otherwise; None where it has none."""
    found = [key for key in PROMPT_KEYS if not is_missing(row.get(key)) and row[key] != ""]
    if found == ["instruction", "input"] and all(isinstance(row[key], str) for key in found):
        return f"{row['instruction']}\n{row['input']}"  # Alpaca's: what is to be done, and with what
    if len(found) > 1:
        raise InputError(f'{" and ".join(found)} may both be the prompt: say which, with columns={{"prompt": "{found[0]}"}}')
    return row[found[0]] if found else None
