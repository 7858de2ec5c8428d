"""Rows of a prompt, two answers, and a label that says which of them is better."""

import re

from tl_reward.data.messages import read_messages
from tl_reward.data.schemas.form import Comparison, LeftOut, Read, Row, answer, list_at, number_at, one_of, question, said_by, text_at
from tl_reward.errors import InputError

TIE = "neither answer is the better one"
FIRST, SECOND = (0, 1), (1, 0)  # the better answer, and the other


def pku_safe(row: Row) -> Read:
    """One pair for each label: the better answer is more helpful, the safer one more harmless. They may well be two different ones."""
    for key, objective in (("better_response_id", "helpful"), ("safer_response_id", "harmless")):
        yield _of_pku(row, key)._replace(objective=objective, part=objective)


def pku_single(row: Row) -> Read:
    yield _of_pku(row, "better_response_id")


def _of_pku(row: Row, key: str) -> Comparison:
    better, other = one_of(row, key, {0: FIRST, 1: SECOND})
    answers = [answer(text_at(row, name)) for name in ("response_0", "response_1")]
    return Comparison(question(text_at(row, "prompt")), answers[better], answers[other])


def shp(row: Row) -> Read:
    better, other = one_of(row, "labels", {1: FIRST, 0: SECOND})
    answers = [answer(text_at(row, name)) for name in ("human_ref_A", "human_ref_B")]
    domain = row.get("domain")
    subset = re.sub(r"_(train|validation|test)$", "", domain) if isinstance(domain, str) else None
    yield Comparison(question(text_at(row, "history")), answers[better], answers[other], objective="helpful", subset=subset)


def judgebench(row: Row) -> Read:
    order = one_of(row, "label", {"A>B": FIRST, "B>A": SECOND, "A=B": None})
    answers = [answer(text_at(row, name)) for name in ("response_A", "response_B")]
    source = row.get("source")
    subset = source if isinstance(source, str) else None
    prompt = question(text_at(row, "question"))
    yield LeftOut(TIE) if order is None else Comparison(prompt, answers[order[0]], answers[order[1]], subset=subset)


def helpsteer2_preference(row: Row) -> Read:
    yield _by_strength(row, "preference_strength", helpsteer_prompt(text_at(row, "prompt")), ("response_1", "response_2"))


def helpsteer3(row: Row) -> Read:
    context = list_at(row, "context")
    yield _by_strength(row, "overall_preference", [message._asdict() for message in read_messages(context)], ("response1", "response2"))


def _by_strength(row: Row, key: str, prompt: list[dict[str, str]], names: tuple[str, str]) -> Comparison | LeftOut:
    """A strength from -3, the first answer is much better, to 3, the second one is."""
    strength = number_at(row, key, -3, 3)
    answers = [answer(text_at(row, name)) for name in names]
    better, other = FIRST if strength < 0 else SECOND
    return Comparison(prompt, answers[better], answers[other]) if strength else LeftOut(TIE)


_HELPSTEER_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")


def helpsteer_prompt(text: str) -> list[dict[str, str]]:
    """HelpSteer's prompts of several turns are one text, with a marker before each turn after the first.

    >>> [message["role"] for message in helpsteer_prompt("Hi\\n<extra_id_1>Assistant\\nHello.\\n<extra_id_1>User\\nBye")]
    ['user', 'assistant', 'user']
    """
    first, *turns = _HELPSTEER_TURN.split(text)
    roles = ("user", *(speaker.lower() for speaker in turns[::2]))
    return [said_by(role, said) for role, said in zip(roles, (first, *turns[1::2]), strict=True)]


def summaries(row: Row) -> Read:
    """Two summaries of a post or an article; the prompt is written as in the paper (Stiennon et al. 2020)."""
    info, both = row.get("info"), list_at(row, "summaries", 2)
    if not isinstance(info, dict) or len(both) != 2 or not all(isinstance(each, dict) for each in both):
        raise InputError("a comparison of summaries must hold info {post, title, subreddit} or {article}, and two summaries {text}")
    better, other = one_of(row, "choice", {0: FIRST, 1: SECOND})
    answers = [answer(text_at(each, "text").removeprefix(" ")) for each in both]  # the space after "TL;DR:"
    yield Comparison(question(_asked(info)), answers[better], answers[other])


def _asked(info: Row) -> str:
    if info.get("post"):
        head = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
        head += [f"TITLE: {info['title']}"] if info.get("title") else []
        return "\n\n".join([*head, f"POST: {text_at(info, 'post')}", "TL;DR:"])
    return f"Article:\n{text_at(info, 'article')}\n\nTL;DR:"
