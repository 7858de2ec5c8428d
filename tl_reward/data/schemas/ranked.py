"""Rows of a prompt and several answers with ranks or scores: a pair of any two that differ."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tl_reward.data.messages import read_messages, shown_short
from tl_reward.data.schemas.form import Comparison, LeftOut, Read, Row, answer, list_at, number_at, prompt_at, question, text_at
from tl_reward.data.schemas.two_answers import helpsteer_prompt
from tl_reward.errors import InputError

TIE = "two answers have one rank or score"


def nectar(row: Row) -> Read:
    """All pairs of the answers, 21 of 7, as the card counts them (3.8 million of 182,954 prompts)."""
    answers = [_held(item, "answers") for item in list_at(row, "answers", 2)]
    ranks = [-number_at(item, "rank") for item in answers]
    yield from _all_pairs(prompt_at(row), [_said(item, "answer") for item in answers], ranks)


def ultrafeedback(row: Row) -> Read:
    answers = [_held(item, "completions") for item in list_at(row, "completions", 2)]
    scores = [number_at(item, "overall_score") for item in answers]
    yield from _all_pairs(question(text_at(row, "instruction")), [_said(item, "response") for item in answers], scores)


def scored(row: Row) -> Read:
    yield from _listed(row, "scores", 1)


def by_rank(row: Row) -> Read:
    yield from _listed(row, "ranks", -1)


def _listed(row: Row, key: str, sign: int) -> Read:
    answers, numbers = list_at(row, "responses", 2), list_at(row, key, 2)
    if len(answers) != len(numbers):
        raise InputError(f"responses and {key} must be of one length, got {len(answers)} and {len(numbers)}")
    said = [_said({"responses": each}, "responses") for each in answers]
    yield from _all_pairs(prompt_at(row), said, [sign * number_at({key: each}, key) for each in numbers])


def rmb_pair(row: Row) -> Read:
    yield from _rmb(row, [_held(row["chosen"], "chosen")], [_held(row["reject"], "reject")])


def rmb_best(row: Row) -> Read:
    yield from _rmb(row, [_held(row["bon_best"], "bon_best")], [_held(item, "loser_list") for item in list_at(row, "loser_list")])


def _rmb(row: Row, good: Sequence[Row], bad: Sequence[Row]) -> Read:
    path = row.get("category_path")
    path = path if isinstance(path, str) else None
    objective = next((name for name, part in (("harmless", "harmless"), ("helpful", "helpful")) if part in (path or "").lower()), None)
    prompt = [message._asdict() for message in read_messages(list_at(row, "conversation_input"))]
    for i, one in enumerate(good):
        for j, other in enumerate(bad):
            sides = answer(text_at(one, "answer")), answer(text_at(other, "answer"))
            yield Comparison(prompt, *sides, objective=objective, subset=path, part=f"{i}-{j}" if len(bad) > 1 else "")


def helpsteer(rows: Sequence[Row]) -> Read:
    """Rows of one prompt, an answer each: two of them in HelpSteer2, up to four in HelpSteer. The more helpful one is chosen."""
    for found in helpsteer_by(rows, "helpfulness"):
        yield found._replace(objective="helpful") if isinstance(found, Comparison) else found


def helpsteer_by(rows: Sequence[Row], attribute: str) -> Read:
    """The answer with more of an attribute is chosen."""
    if len(rows) == 1:
        text_at(rows[0], "response")
        yield LeftOut("the prompt has one answer alone (answers to one prompt must be in consecutive rows)")
        return
    scores = [number_at(row, attribute, 0, 4) for row in rows]
    prompt = helpsteer_prompt(text_at(rows[0], "prompt"))
    yield from _all_pairs(prompt, [text_at(row, "response") for row in rows], scores)


def ultrafeedback_by(rows: Sequence[Row], attribute: str) -> Read:
    """By the rating of one aspect, from 1 to 5. An answer that has none is in no pair."""
    row = rows[0]
    answers, ratings = list_at(row, "completions", 2), list[float | None]()
    for item in answers:
        found = (_held(item, "completions").get("annotations") or {}).get(attribute)
        found = found[0] if isinstance(found, (list, tuple)) and found else found
        if not isinstance(found, Mapping):
            raise InputError(f"completions must hold annotations: {{{attribute}: {{Rating}}}}, got {shown_short(found)}")
        ratings.append(None if found.get("Rating") == "N/A" else number_at(found, "Rating", 1, 5))
    yield from _all_pairs(question(text_at(row, "instruction")), [_said(item, "response") for item in answers], ratings)


def _all_pairs(prompt: Any, answers: Sequence[str], scores: Sequence[float | None]) -> Read:
    """A pair of any two answers with different scores; higher is better. Its part of the id says which: the chosen one first."""
    for i, j in combinations(range(len(answers)), 2):
        one, two = scores[i], scores[j]
        if one is None or two is None:
            yield LeftOut("an answer has no rating")
            continue
        if one == two:
            yield LeftOut(TIE)
            continue
        if len(answers) > 2 and (not answers[i].strip() or not answers[j].strip() or answers[i] == answers[j]):
            yield LeftOut("two answers are equal, or one is empty")  # the other answers of the row say something
            continue
        better, other = (i, j) if one > two else (j, i)
        part = f"{better}-{other}" if len(answers) > 2 else ""
        yield Comparison(prompt, answer(answers[better]), answer(answers[other]), part=part)


def _said(item: Row, key: str) -> str:
    """An answer of several; an empty one concerns its own comparisons alone."""
    return item[key] if isinstance(item.get(key), str) else text_at(item, key)


def _held(item: Any, key: str) -> Row:
    if not isinstance(item, Mapping):
        raise InputError(f"{key} must hold an object with the text of an answer, got {type(item).__name__}")
    return item
