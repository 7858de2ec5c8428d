"""Rows that hold `chosen` and `rejected`, beside a prompt of whatever name."""

from collections.abc import Mapping
from typing import Any

from tl_reward.data.messages import has_turns
from tl_reward.data.schemas.form import Comparison, Read, Row, is_missing
from tl_reward.errors import InputError

# Where a row has no `prompt`, its question may be under one of these.
PROMPT_KEYS = ("question", "instruction", "input", "conversations")


def chosen_and_rejected(row: Row) -> Read:
    yield _comparison(row, row["chosen"], row["rejected"])


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


def _question(row: Row) -> Any:
    """The prompt of a row that calls it otherwise; None where it has none."""
    found = [key for key in PROMPT_KEYS if not is_missing(row.get(key)) and row[key] != ""]
    if found == ["instruction", "input"] and all(isinstance(row[key], str) for key in found):
        return f"{row['instruction']}\n{row['input']}"  # Alpaca's: what is to be done, and with what
    if len(found) > 1:
        raise InputError(f'{" and ".join(found)} may both be the prompt: say which, with columns={{"prompt": "{found[0]}"}}')
    return row[found[0]] if found else None
