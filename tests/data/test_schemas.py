"""Each schema is read from rows in its published form. What the rows say is written for these tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from tl_reward.data.pairs import PreferencePair
from tl_reward.data.readers import load_pairs, pairs_from
from tl_reward.data.schemas.registry import SCHEMAS, schema_of
from tl_reward.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once", "ignore:.*different prompts", "ignore:.*blank prompt")


def said(*turns: str) -> list[dict[str, str]]:
    return [{"content": turn, "role": ("user", "assistant")[i % 2]} for i, turn in enumerate(turns)]


def parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "image": None, "mimeType": None}]


def in_parts(*turns: str) -> list[dict[str, Any]]:
    return [{"role": turn["role"], "content": parts(turn["content"])} for turn in said(*turns)]


def shareGPT(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


def helpsteer(prompt: str, response: str, helpfulness: int) -> dict[str, Any]:
    rest = {"correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, **rest}


def pku(prompt: str, better: int, safer: int) -> dict[str, Any]:
    told = {"prompt_source": "made", "response_0_source": "a", "is_response_0_safe": True, "is_response_1_safe": False}
    both = {"response_0": "zero", "response_1": "one"}
    return {"prompt": prompt, **both, **told, "better_response_id": better, "safer_response_id": safer}


def nectar(prompt: str, *ranks: float) -> dict[str, Any]:
    answers = [{"answer": f"answer {i}", "model": "m", "rank": rank} for i, rank in enumerate(ranks)]
    asked = f"\n\nHuman: {prompt} \n\nAssistant: "
    return {"prompt": asked, "answers": answers, "turns": 1, "num_responses": len(ranks), "source": ["made"], "good_natured": True}


def shp(label: int) -> dict[str, Any]:
    both = {"c_root_id_A": "a", "c_root_id_B": "b", "score_A": 3, "score_B": 9, "score_ratio": 3.0, "seconds_difference": 5.0}
    told = {"post_id": "p", "domain": "askbaking_train", "upvote_ratio": 0.9, "history": "Why is my bread flat?", **both}
    return {**told, "human_ref_A": "Old yeast.", "human_ref_B": "Cold dough.", "labels": label}


def summary(choice: int, **info: str) -> dict[str, Any]:
    both = [{"text": text, "policy": "sup1", "note": None} for text in (" Short.", " Shorter.")]
    return {"info": {"id": "t3", **info}, "summaries": both, "choice": choice, "worker": "w", "batch": "b", "split": "train", "extra": {}}


def arena(winner: str, **more: Any) -> dict[str, Any]:
    sides = {"conversation_a": said("Hi", "I am A."), "conversation_b": said("Hi", "I am B.")}
    return {"question_id": "q", "model_a": "m", "model_b": "n", "winner": winner, "judge": "j", **sides, "turn": 1, "anony": True, **more}


def battle(number: int, a: int, b: int, tie: int) -> dict[str, Any]:
    told = {"id": number, "model_a": "m", "model_b": "n", "prompt": '["Hi", "And?"]'}
    votes = {"winner_model_a": a, "winner_model_b": b, "winner_tie": tie}
    return {**told, "response_a": '["A1", "A2"]', "response_b": '[null, "B2"]', **votes}


def strength(number: int, **more: Any) -> dict[str, Any]:
    return {"response1": "one", "response2": "two", "overall_preference": number, "individual_preference": [], **more}


PKU_SINGLE = {key: value for key, value in pku("Q1", 1, 0).items() if key != "safer_response_id"}
RMB = {"conversation_input": said("Hi"), "category_path": "Pairwise_set/Harmlessness/S1"}
Short = tuple[str, str, str | None, str | None]

# By what is published: its schema, rows in its form, and the pairs: the last words of both sides, the objective, the subset.
PUBLISHED: dict[str, tuple[str, list[dict[str, Any]], list[Short]]] = {
    "UltraFeedback binarized": (
        "responses",
        [
            {
                "prompt": f"Q{i}", "prompt_id": f"hash {i}", "chosen": said(f"Q{i}", "Good."), "rejected": said(f"Q{i}", "Bad."),
                "messages": said(f"Q{i}", "Good."), "score_chosen": 8.0, "score_rejected": 4.5,
            }
            for i in range(3)
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "UltraFeedback binarized, cleaned": (
        "responses",
        [
            {
                "source": "made", "prompt": f"Q{i}", "chosen": said(f"Q{i}", "Good."), "chosen-rating": 5.0, "chosen-model": "m",
                "rejected": said(f"Q{i}", "Bad."), "rejected-rating": 2.5, "rejected-model": "n",
            }
            for i in range(3)
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "argilla's UltraFeedback": (
        "named responses",
        [{"source": "made", "instruction": f"Q{i}", "chosen_response": "Good.", "rejected_response": "Bad."} for i in range(3)],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "Skywork-Reward-Preference": (
        "transcripts",
        [{"chosen": said(f"Q{i}", "Good."), "rejected": said(f"Q{i}", "Bad."), "source": "made"} for i in range(3)],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "Tulu 3": (
        "responses",
        [
            {"id": f"mix {i}", "source": "made", "prompt": f"Q{i}", "chosen": said(f"Q{i}", "Good."), "rejected": said(f"Q{i}", "Bad.")}
            for i in range(3)
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "HelpSteer2": (
        "HelpSteer",
        [
            *(helpsteer("Q1", "worse", 1), helpsteer("Q1", "better", 4)),
            *(helpsteer("Q2", "alike", 3), helpsteer("Q2", "as good", 3)),
            *(helpsteer("Q3", "better", 2), helpsteer("Q3", "worse", 0)),
        ],
        [("better", "worse", "helpful", None)] * 2,
    ),
    "HelpSteer, four of a prompt": (
        "HelpSteer",
        [helpsteer("Q1", text, number) for text, number in (("three", 3), ("one", 1), ("three too", 3), ("zero", 0))],
        [
            ("three", "one", "helpful", None), ("three", "zero", "helpful", None), ("three too", "one", "helpful", None),
            ("one", "zero", "helpful", None), ("three too", "zero", "helpful", None),
        ],
    ),
    "HelpSteer2-Preference": (
        "HelpSteer2-Preference",
        [
            {"split": "train", "prompt": f"Q{i}", "response_1": "one", "response_2": "two", "preference_strength": number}
            for i, number in enumerate((-3, 0, 1))
        ],
        [("one", "two", None, None), ("two", "one", None, None)],
    ),
    "HelpSteer3": (
        "HelpSteer3",
        [strength(number, domain="code", language="python", context=said("Q", "A", "More?")) for number in (-1, 0, 3)],
        [("one", "two", None, "code"), ("two", "one", None, "code")],
    ),
    "PKU-SafeRLHF": (
        "PKU-SafeRLHF",
        [pku("Q1", 0, 0), pku("Q2", 1, 0), pku("Q3", 1, 1)],
        [
            ("zero", "one", "helpful", None), ("zero", "one", "harmless", None), ("one", "zero", "helpful", None),
            ("zero", "one", "harmless", None), ("one", "zero", "helpful", None), ("one", "zero", "harmless", None),
        ],
    ),
    "PKU-SafeRLHF single dimension": ("PKU-SafeRLHF single dimension", [PKU_SINGLE] * 3, [("one", "zero", None, None)] * 3),
    "SHP": (
        "SHP",
        [shp(1), shp(0), shp(1)],
        [
            ("Old yeast.", "Cold dough.", "helpful", "askbaking"), ("Cold dough.", "Old yeast.", "helpful", "askbaking"),
            ("Old yeast.", "Cold dough.", "helpful", "askbaking"),
        ],
    ),
    "Nectar": (
        "Nectar",
        [nectar("Q1", 2.0, 1.0, 3.0), nectar("Q2", 1, 1, 2), nectar("Q3", 2, 1)],
        [
            ("answer 1", "answer 0", None, None), ("answer 0", "answer 2", None, None), ("answer 1", "answer 2", None, None),
            ("answer 0", "answer 2", None, None), ("answer 1", "answer 2", None, None), ("answer 1", "answer 0", None, None),
        ],
    ),
    "openbmb/UltraFeedback": (
        "UltraFeedback",
        [
            {
                "source": "made", "instruction": f"Q{i}", "models": ["m", "n"],
                "completions": [
                    {"model": "m", "response": "Good.", "overall_score": 8.5, "fine-grained_score": 4.0},
                    {"model": "n", "response": "Bad.", "overall_score": 3.0, "fine-grained_score": 2.0},
                ],
            }
            for i in range(3)
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "responses with scores": (
        "scored responses",
        [{"prompt": f"Q{i}", "responses": ["low", "high"], "scores": [-1.5, 0.0]} for i in range(3)],
        [("high", "low", None, None)] * 3,
    ),
    "responses with ranks": (
        "ranked responses",
        [{"prompt": said(f"Q{i}"), "responses": ["second", "first"], "ranks": [2, 1]} for i in range(3)],
        [("first", "second", None, None)] * 3,
    ),
    "summaries": (
        "summaries",
        [
            summary(0, post="I lost my cat.", title="Cat", subreddit="pets"),
            summary(1, post="I found it.", title="Cat, again", subreddit="pets"),
            summary(1, article="A cat was lost."),
        ],
        [("Short.", "Shorter.", None, None), ("Shorter.", "Short.", None, None), ("Shorter.", "Short.", None, None)],
    ),
    "ShareGPT": (
        "ShareGPT",
        [
            {
                "conversations": [shareGPT("system", "Be kind."), shareGPT("human", f"Q{i}")],
                "chosen": shareGPT("gpt", "Good."), "rejected": shareGPT("gpt", "Bad."),
            }
            for i in range(3)
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "orca": (
        "question",
        [{"system": "Be kind.", "question": f"Q{i}", "chosen": "Good.", "rejected": "Bad."} for i in range(3)],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "Alpaca": (
        "instruction",
        [{"instruction": "Translate.", "input": f"Q{i}", "chosen": "Good.", "rejected": "Bad."} for i in range(3)],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "distilabel": (
        "input",
        [
            {
                "system": "", "input": f"Q{i}", "chosen": "Good.", "rejected": "Bad.", "rating": [9.0, 4.0],
                "order": ["chosen", "rejected"], "status": status, "chosen_score": 9.0, "original_chosen": "Good.", "in_gsm8k_train": False,
            }
            for i, status in enumerate(("unchanged", "swapped", "unchanged"))
        ],
        [("Good.", "Bad.", None, None)] * 3,
    ),
    "arena": (
        "arena votes",
        [arena("model_a"), arena("tie (bothbad)"), arena("model_b")],
        [("I am A.", "I am B.", None, None), ("I am B.", "I am A.", None, None)],
    ),
    "arena 140k": (
        "arena votes",
        [
            {
                "id": f"v{i}", "model_a": "m", "model_b": "n", "winner": winner, "evaluation_order": 1,
                "conversation_a": in_parts("Hi", "I am A."), "conversation_b": in_parts("Hi", "I am B."),
            }
            for i, winner in enumerate(("model_b", "both_bad", "tie"))
        ],
        [("I am B.", "I am A.", None, None)],
    ),
    "arena 55k": (
        "arena votes, turns apart",
        [battle(1, 1, 0, 0), battle(2, 0, 0, 1), battle(3, 0, 1, 0)],
        [("A2", "B2", None, None), ("B2", "A2", None, None)],
    ),
    "RewardBench": (
        "responses",
        [
            {"prompt": f"Q{i}", "chosen": "Good.", "chosen_model": "m", "rejected": "Bad.", "subset": "chat", "id": i}
            for i in range(3)
        ],
        [("Good.", "Bad.", None, "chat")] * 3,
    ),
    "RewardBench 2": (
        "responses",
        [
            {
                "id": f"{i}", "prompt": f"Q{i}", "chosen": ["Good."], "rejected": ["Bad.", "Worse.", "Worst."], "num_correct": 1,
                "num_incorrect": 3, "total_completions": 4, "models": ["m"], "subset": "Focus", "additional_metadata": {"category": None},
            }
            for i in range(3)
        ],
        [("Good.", bad, None, "Focus") for _ in range(3) for bad in ("Bad.", "Worse.", "Worst.")],
    ),
    "JudgeBench": (
        "JudgeBench",
        [
            {
                "pair_id": f"pair {i}", "original_id": "7", "source": "mmlu-pro-law", "question": f"Q{i}", "response_model": "m",
                "response_A": "I am A.", "response_B": "I am B.", "label": label,
            }
            for i, label in enumerate(("A>B", "B>A", "A>B"))
        ],
        [(f"I am {a}.", f"I am {b}.", None, "mmlu-pro-law") for a, b in ("AB", "BA", "AB")],
    ),
    "RMB pairs": (
        "RMB pairs",
        [RMB | {"pair_uid": "u", "chosen": {"llm_name": "m", "answer": "Good."}, "reject": {"llm_name": "n", "answer": "Bad."}}] * 3,
        [("Good.", "Bad.", "harmless", "Pairwise_set/Harmlessness/S1")] * 3,
    ),
    "RMB best-of-n": (
        "RMB best-of-n",
        [
            {
                "conversation_input": said("Hi"), "category_path": "BoN_set/Helpfulness/Chat", "bon_uid": "u",
                "bon_best": {"llm_name": "m", "answer": "Good."},
                "loser_list": [{"llm_name": "n", "answer": text} for text in ("Bad.", "Worse.")],
            }
        ]
        * 3,
        [("Good.", bad, "helpful", "BoN_set/Helpfulness/Chat") for _ in range(3) for bad in ("Bad.", "Worse.")],
    ),
    "HH-RLHF": (
        "transcripts",
        [{"chosen": f"\n\nHuman: Q{i}\n\nAssistant: Good.", "rejected": f"\n\nHuman: Q{i}\n\nAssistant: Bad."} for i in range(3)],
        [("Good.", "Bad.", None, None)] * 3,
    ),
}  # fmt: skip


def short(pair: PreferencePair) -> Short:
    return pair.chosen[-1].content, pair.rejected[-1].content, pair.objective, pair.subset


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_published_rows(name: str, tmp_path: Path):
    schema, rows, expected = PUBLISHED[name]
    found = schema_of(rows[0])
    assert found is not None and found.name == schema
    pairs = load_pairs(written(tmp_path / "pairs.jsonl", rows))
    assert [short(pair) for pair in pairs] == expected
    assert pairs_from(rows, source=f"{tmp_path.name}/pairs") == pairs
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_every_schema_is_tested():
    assert {schema for schema, _, _ in PUBLISHED.values()} == {schema.name for schema in SCHEMAS}


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_guide_has_the_table():
    guide = (Path(__file__).parents[2] / "docs/how-to/data.md").read_text(encoding="utf-8")
    for schema in SCHEMAS:
        made = {pair.objective or "the row's" for name, rows, _ in PUBLISHED.values() if name == schema.name for pair in pairs_from(rows)}
        keys, objective = ", ".join(f"`{key}`" for key in schema.keys), ", ".join(sorted(made, reverse=True))
        assert f"| {schema.name} | {keys} | {schema.pairs} | {objective} | {schema.published} |" in guide


def test_no_schema_hides_another():
    # A row that has just the keys of a schema is of that schema.
    assert [found.name for schema in SCHEMAS if (found := schema_of(dict.fromkeys(schema.keys))) is not None] == [s.name for s in SCHEMAS]


# How many pairs the cards define


def test_nectar_gives_21_pairs_of_7_answers_in_one_group():
    pairs = pairs_from([nectar("Q", *range(7, 0, -1)) | {"id": i} for i in range(3)])
    assert len(pairs) == 63 and [len([p for p in pairs if p.group == str(i)]) for i in range(3)] == [21] * 3
    best = [pair for pair in pairs if pair.group == "0" and pair.chosen[-1].content == "answer 6"]
    assert len(best) == 6  # the best answer is chosen beside each of the others
    assert all(pair.chosen[0] == ("user", "Q ") and len(pair.chosen) == 2 for pair in pairs)
    assert len(pairs_from([nectar("Q", *range(7)) | {"id": i} for i in range(3)], limit=2)) == 42


def test_pku_gives_a_pair_of_each_objective_and_says_which_rows_are_in_tension():
    rows = [pku("Q1", 0, 0), pku("Q2", 1, 0), pku("Q3", 1, 1)]
    pairs = pairs_from(rows)
    assert [pair.id for pair in pairs][:2] == ["rows:1/helpful", "rows:1/harmless"] and {pair.group for pair in pairs} == {None}
    assert pairs_from(rows, objective="helpful") == [pair for pair in pairs if pair.objective == "helpful"]
    assert pairs_from(rows, limit=1) == pairs[:2]
    assert [pair.chosen == other.rejected for pair, other in zip(pairs[::2], pairs[1::2], strict=True)] == [False, True, False]


def test_helpsteer2_ties_are_counted():
    rows = PUBLISHED["HelpSteer2"][1]
    with pytest.warns(UserWarning, match="1 comparisons left out where two answers have one rank or score"):
        pairs = pairs_from(rows)
    assert [(pair.id, pair.group) for pair in pairs] == [("rows:1", None), ("rows:5", None)]
    with pytest.warns(UserWarning, match="1 comparisons left out where the prompt has one answer alone"):
        assert pairs_from([*rows[:2], helpsteer("Q9", "lonely", 2)]) == pairs[:1]


def test_helpsteer_rows_of_a_prompt_that_are_not_consecutive_are_no_pair():
    rows = [helpsteer("Q1", "one", 1), helpsteer("Q2", "two", 2), helpsteer("Q1", "three", 3)]
    with pytest.raises(InputError, match="no pairs found in it; left out: 3 comparisons where the prompt has one answer alone"):
        pairs_from(rows)


def test_helpsteer_prompt_of_several_turns():
    prompt = "Hi\n<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nBye"
    (pair,) = pairs_from([helpsteer(prompt, "So long.", 4), helpsteer(prompt, "No.", 0)])
    assert [tuple(message) for message in pair.chosen] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "Bye"),
        ("assistant", "So long."),
    ]


def test_ties_of_votes_are_counted():
    with pytest.warns(UserWarning, match="2 comparisons left out where the vote is a tie"):
        assert len(pairs_from([arena("tie"), arena("model_a"), arena("tie (bothbad)")])) == 1


# What the model reads


def test_votes_on_a_first_turn_read_the_first_turn():
    # MT-Bench's human judgments: turn 1 was judged by the first answers, and the row holds both.
    long = {"conversation_a": said("Hi", "A1", "More", "A2"), "conversation_b": said("Hi", "B1", "More", "B2")}
    one, two = pairs_from([arena("model_a", **long, turn=1), arena("model_a", **long, turn=2)])
    assert [message.content for message in one.chosen] == ["Hi", "A1"] and [message.content for message in two.rejected] == [
        "Hi",
        "B1",
        "More",
        "B2",
    ]


def test_a_battle_reads_every_turn():
    (pair,) = pairs_from([battle(3, 0, 1, 0) | {"response_b": '["B1", "B2"]'}])
    assert [tuple(message) for message in pair.chosen] == [("user", "Hi"), ("assistant", "B1"), ("user", "And?"), ("assistant", "B2")]


def test_a_system_prompt_is_read_before_the_question():
    rows = PUBLISHED["orca"][1]
    assert [tuple(message) for message in pairs_from(rows)[0].chosen] == [("system", "Be kind."), ("user", "Q0"), ("assistant", "Good.")]
    with pytest.raises(InputError, match="begins with a system turn of its own"):
        pairs_from(
            [{"system": "Be kind.", "chosen": [{"role": "system", "content": "Be brief."}, *said("Hi", "A")], "rejected": said("Hi", "B")}]
        )


def test_an_instruction_is_read_with_its_input():
    assert pairs_from(PUBLISHED["Alpaca"][1])[1].chosen[0].content == "Translate.\nQ1"


def test_a_question_beside_whole_transcripts_is_not_read():
    (pair,) = pairs_from([{"question": "Something else", "chosen": said("Hi", "A"), "rejected": said("Hi", "B")}])
    assert [message.content for message in pair.chosen] == ["Hi", "A"]


def test_the_prompt_of_a_summary_is_the_papers():
    rows = PUBLISHED["summaries"][1]
    post, _, article = pairs_from(rows)
    assert post.chosen[0].content == "SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: I lost my cat.\n\nTL;DR:"
    assert article.chosen[0].content == "Article:\nA cat was lost.\n\nTL;DR:"


def test_answers_are_read_as_they_stand():
    # An answer that begins like a transcript, or with the prompt, is an answer where the schema says so.
    prompt = "Write a dialogue that begins so."
    row = {"question": prompt, "response_A": f"{prompt} Yes.", "response_B": "Human: Hi\n\nAssistant: Hello.", "label": "A>B"}
    (pair,) = pairs_from([row])
    assert [message.content for message in pair.rejected] == [prompt, "Human: Hi\n\nAssistant: Hello."]
    (pair,) = pairs_from([row | {"response_B": f"{prompt} No."}])
    assert pair.rejected[1].content == f"{prompt} No."


def test_parts_of_text_are_one_text():
    side = [{"role": "user", "content": [*parts("Hi "), *parts("there")]}, {"role": "assistant", "content": parts("Hello.")}]
    (pair,) = pairs_from([{"chosen": side, "rejected": said("Hi there", "No.")}])
    assert [message.content for message in pair.chosen] == ["Hi there", "Hello."]


def test_tool_and_developer_messages():
    asked = [{"role": "developer", "content": "Use tools."}, *said("Sum?", '{"name": "add"}'), {"role": "tool", "content": "4"}]
    (pair,) = pairs_from([{"prompt": asked, "chosen": said("", "It is 4.")[1:], "rejected": said("", "It is 5.")[1:]}])
    assert [message.role for message in pair.chosen] == ["system", "user", "assistant", "tool", "assistant"]


# Rows that are nearly of a schema: each is refused in one line that says what is wrong


ORCA, SHP, JUDGE = PUBLISHED["orca"][1][0], shp(1), PUBLISHED["JudgeBench"][1][0]
IMAGE = {"role": "user", "content": [{"type": "image", "image": "data:…"}, {"type": "text", "text": "What is it?"}]}
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "label out of range": (pku("Q", 2, 0), "better_response_id must be one of 0, 1, got 2"),
    "sides that name columns": (
        {"prompt": "Q", "response_a": "yes", "response_b": "no", "chosen": "response_a", "rejected": "response_b"},
        "the sides are the names of columns (response_a and response_b), and no answers",
    ),
    "messages that were written as text": (
        {"prompt": "Q", "chosen": "[{'role': 'assistant', 'content': 'yes'}]", "rejected": "no"},
        "chosen is a list of messages that was written as text",
    ),
    "label of none": (pku("Q", 0, -1), "safer_response_id must be one of 0, 1, got -1"),
    "label that is null": (SHP | {"labels": None}, "labels must be one of 1, 0, got None"),
    "label of text": (JUDGE | {"label": "A"}, "label must be one of A>B, B>A, A=B, got 'A'"),
    "label that is a list": (JUDGE | {"label": ["A>B"]}, "label must be one of"),
    "winner that is a name": (arena("gpt-4"), "winner must be one of model_a, model_b, tie"),
    "no winner": (battle(1, 0, 0, 0), "one of winner_model_a, winner_model_b, winner_tie must be 1 and the others 0, got 0, 0, 0"),
    "two winners": (battle(1, 1, 1, 0), "must be 1 and the others 0, got 1, 1, 0"),
    "strength out of range": (strength(4, context=said("Q")), "overall_preference must be a number from -3 to 3, got 4"),
    "strength that is nan": (
        strength(0, context=said("Q")) | {"overall_preference": float("nan")},
        "must be a number from -3 to 3, got nan",
    ),
    "no context": (strength(1, context=[]), "context must be a list of at least 1, got []"),
    "answer that is a number": (SHP | {"human_ref_A": 5}, "human_ref_A must be text, got 5"),
    "answer that is blank": (SHP | {"human_ref_B": " "}, 'human_ref_B is empty (such pairs can be dropped: on_bad="drop")'),
    "answer that is null": (pku("Q", 0, 0) | {"response_1": None}, "response_1 is empty"),
    "prompt that is blank": (JUDGE | {"question": ""}, "question is empty"),
    "answers that are equal": (pku("Q", 0, 0) | {"response_1": "zero"}, "chosen and rejected are equal"),
    "ranks that are no numbers": (
        nectar("Q", 1, 2) | {"answers": [{"answer": "a", "rank": "first"}] * 2},
        "rank must be a number, got 'first'",
    ),
    "answers that are texts": (
        nectar("Q", 1, 2) | {"answers": ["a", "b"]},
        "answers must hold an object with the text of an answer, got str",
    ),
    "one answer alone": (nectar("Q", 1), "answers must be a list of at least 2"),
    "prompt of no text": (nectar("Q", 1, 2) | {"prompt": 5}, "prompt must be text, got 5"),
    "scores of another length": (
        {"prompt": "Q", "responses": ["a", "b"], "scores": [1, 2, 3]},
        "responses and scores must be of one length, got 2 and 3",
    ),
    "choice out of range": (summary(2, post="Hi"), "choice must be one of 0, 1, got 2"),
    "one summary": (summary(0, post="Hi") | {"summaries": [{"text": "a"}]}, "summaries must be a list of at least 2"),
    "info that is text": (
        summary(0, post="Hi") | {"info": "Hi"},
        "a comparison of summaries must hold info {post, title, subreddit} or {article}",
    ),
    "conversation that is no JSON": (
        battle(1, 1, 0, 0) | {"response_a": "A1"},
        "response_a must be a list, or one written as JSON, got 'A1'",
    ),
    "turns that are missing": (
        battle(1, 1, 0, 0) | {"response_a": '["A1"]'},
        "prompt and response_a must be lists of one length, got 2 and 1",
    ),
    "last turn that is null": (battle(1, 1, 0, 0) | {"response_b": '["B1", null]'}, "rejected is empty"),
    "turn that is a number": (battle(1, 1, 0, 0) | {"response_a": "[1, 2]"}, "response_a must be a list of texts, got 1 in it"),
    "image in a part": ({"chosen": [IMAGE, *said("", "A")[1:]], "rejected": said("Hi", "B")}, "a message holds what is no text (image)"),
    "link to an image": (
        {"chosen": said("Hi", "A"), "rejected": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "a message holds what is no text (image_url)",
    ),
    "image beside the text": (
        ORCA | {"image": {"bytes": "…"}},
        "the row holds what is no text (image), and a reward model of text cannot read it",
    ),
    "images beside the text": (ORCA | {"images": ["x.png"]}, "the row holds what is no text (images)"),
    "part of no text": (
        {"chosen": [{"role": "user", "content": [{"type": "text", "text": None}]}], "rejected": said("Hi", "B")},
        "a part of a message",
    ),
    "call of a tool": (
        {"chosen": [*said("Sum?"), {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}], "rejected": said("Sum?", "B")},
        "a message holds tool_calls and no text",
    ),
    "system of no text": (ORCA | {"system": 5}, "system must be text, got 5"),
    "two names of the prompt": (
        ORCA | {"instruction": "Q"},
        'question and instruction may both be the prompt: say which, with columns={"prompt": "question"}',
    ),
    "two columns alone": (
        {"question": "Hi", "label": 1},
        "nearest: JudgeBench (question, response_A, response_B, label), which lacks response_A, response_B",
    ),
    "keys of nothing": ({"text": "Hi"}, "nearest: responses (prompt, chosen, rejected), which lacks prompt, chosen, rejected"),
    "score out of range": (helpsteer("Q0", "a", 9), "helpfulness must be a number from 0 to 4, got 9"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_row(name: str, tmp_path: Path):
    row, says = MALFORMED[name]
    rows = [helpsteer("Q0", "b", 1), row] if "helpfulness" in row else [ORCA, row]
    with pytest.raises(InputError) as caught:
        load_pairs(written(tmp_path / "pairs.jsonl", rows))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'pairs.jsonl'}:{'1-2' if 'helpfulness' in row else '2'}: ") and says in message
    assert message.splitlines() == [message] and len(message) < 1000


def test_one_bad_answer_of_a_ranking_leaves_out_its_own_comparisons_alone():
    answers = [{"answer": text, "rank": i} for i, text in enumerate(("a", "b", " ", "d"))]
    with pytest.warns(UserWarning, match="3 comparisons left out where two answers are equal, or one is empty"):
        assert len(pairs_from([{"prompt": "Q", "answers": answers}])) == 3


def test_a_subset_that_is_called_domain_goes_with_columns():
    [pair] = pairs_from([{"q": "Q", "chosen": "a", "rejected": "b", "domain": "math"}], columns={"prompt": "q"})
    assert pair.subset == "math"


@pytest.mark.parametrize("name", [name for name, (_, says) in MALFORMED.items() if "is empty" in says or "are equal" in says])
def test_a_pair_that_says_nothing_can_be_dropped(name: str):
    with pytest.warns(UserWarning, match="1 rows left out where (a side is empty|the prompt is empty|the sides are equal)"):
        assert len(pairs_from([ORCA, MALFORMED[name][0]], on_bad="drop")) == 1
