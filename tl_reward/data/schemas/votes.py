"""Votes of people who saw two conversations side by side. A tie is no pair."""

import json
from typing import Any

from tl_reward.data.messages import shown_short
from tl_reward.data.schemas.form import Comparison, LeftOut, Read, Row, is_missing, number_of, one_of, said_by
from tl_reward.errors import InputError

TIE = "the vote is a tie"
A, B = (0, 1), (1, 0)
WINNERS = {"model_a": A, "model_b": B, "tie": None, "tie (bothbad)": None, "tie (inconsistent)": None, "both_bad": None, "bothbad": None}


def conversations(row: Row) -> Read:
    order = one_of(row, "winner", WINNERS)
    if order is None:
        yield LeftOut(TIE)
        return
    sides = [_first_turns(_from_json(row, key), row.get("turn")) for key in ("conversation_a", "conversation_b")]
    yield Comparison(None, sides[order[0]], sides[order[1]])


def _first_turns(messages: list[Any], turn: Any) -> list[Any]:
    """The conversation up to the turn that was voted on: MT-Bench's votes on a first answer come with the second one too."""
    turns = number_of(turn)
    if turns is None or turns < 1:
        return messages
    asked = [i for i, item in enumerate(messages) if isinstance(item, dict) and item.get("role") == "user"]
    return messages[: asked[int(turns)]] if len(asked) > turns else messages


def turns_apart(row: Row) -> Read:
    """The turns of the user, and those of each model, in lists of their own, written as JSON."""
    votes = {key: one_of(row, key, {0: False, 1: True}) for key in ("winner_model_a", "winner_model_b", "winner_tie")}
    if sum(votes.values()) != 1:
        raise InputError(
            f"one of {', '.join(votes)} must be 1 and the others 0, got {', '.join(str(int(vote)) for vote in votes.values())}"
        )
    if votes["winner_tie"]:
        yield LeftOut(TIE)
        return
    sides = [_conversation(row, key) for key in ("response_a", "response_b")]
    better, other = A if votes["winner_model_a"] else B
    yield Comparison(None, sides[better], sides[other])


def _conversation(row: Row, key: str) -> list[dict[str, str]]:
    asked, said = _from_json(row, "prompt"), _from_json(row, key)
    if len(asked) != len(said):
        raise InputError(f"prompt and {key} must be lists of one length, got {len(asked)} and {len(said)}")
    turns = [
        (said_by("user", _text(user, "prompt")), said_by("assistant", _text(model, key))) for user, model in zip(asked, said, strict=True)
    ]
    return [message for turn in turns for message in turn]


def _text(value: Any, key: str) -> str:
    """A turn's text; one that was never written is null, and says nothing."""
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise InputError(f"{key} must be a list of texts, got {shown_short(value)} in it")
    return value


def _from_json(row: Row, key: str) -> list[Any]:
    """A list, which a table writes as JSON."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{key} must be a list, or one written as JSON, got {shown_short(value)}") from None
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{key} must be a list, or one written as JSON, got {shown_short(value)}")
    return list(value)
