"""Answers that are rated by several attributes give the pairs of each, where it is asked for as the objective; and labels that are ties."""

from typing import Any

import pytest

from tl_reward.data.readers import load_pairs, pairs_from
from tl_reward.errors import InputError

FIVE = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ASPECTS = ("helpfulness", "instruction_following", "honesty", "truthfulness")
Objective = Any  # names of attributes, in loops


def helpsteer(prompt: str, response: str, *numbers: int) -> dict[str, Any]:
    """A row in the form of nvidia/HelpSteer2."""
    return {"prompt": prompt, "response": response, **dict(zip(FIVE, numbers, strict=True))}


# Three prompts with two rows each: they differ in helpfulness twice, in correctness three times, in coherence never, in the others once.
HELPSTEER2 = [
    *(helpsteer("Q1", "one", 3, 3, 4, 2, 1), helpsteer("Q1", "two", 1, 4, 4, 2, 1)),
    *(helpsteer("Q2", "one", 0, 0, 4, 1, 2), helpsteer("Q2", "two", 2, 1, 4, 1, 0)),
    *(helpsteer("Q3", "one", 4, 4, 4, 1, 2), helpsteer("Q3", "two", 4, 2, 4, 0, 2)),
]


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("attribute", [name for name in FIVE if name != "coherence"])
def test_helpsteer2_gives_a_pair_of_each_prompt_whose_rows_differ_in_the_attribute(attribute: Objective):
    pairs = pairs_from(HELPSTEER2, objective=attribute)
    prompts = [HELPSTEER2[i : i + 2] for i in (0, 2, 4)]
    differ = [(one, two) for one, two in prompts if one[attribute] != two[attribute]]
    assert [pair.chosen[0].content for pair in pairs] == [one["prompt"] for one, _ in differ]
    assert [pair.chosen[-1].content for pair in pairs] == [max(both, key=lambda row: row[attribute])["response"] for both in differ]
    assert {pair.objective for pair in pairs} == {attribute}
    assert len(pairs) == {"helpfulness": 2, "correctness": 3, "complexity": 1, "verbosity": 1}[attribute]


def test_an_attribute_in_which_no_two_rows_differ():
    with pytest.raises(InputError, match="no pairs found in it; left out: 3 comparisons where two answers have one rank or score"):
        pairs_from(HELPSTEER2, objective="coherence")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_without_an_attribute_it_is_helpfulness_and_pairs_of_two_attributes_stand_side_by_side():
    helpful, correct = pairs_from(HELPSTEER2), pairs_from(HELPSTEER2, objective="correctness")
    assert [(pair.id, pair.objective, pair.group) for pair in helpful] == [("rows:1", "helpful", None), ("rows:3", "helpful", None)]
    assert pairs_from(HELPSTEER2, objective="helpful") == pairs_from(HELPSTEER2, objective="mixed") == helpful
    assert [pair.id for pair in correct] == ["rows:1/correctness", "rows:3/correctness", "rows:5/correctness"]
    assert (helpful[0].chosen, helpful[0].rejected) == (correct[0].rejected, correct[0].chosen)  # in tension


def test_four_answers_are_one_group_of_each_attribute():
    rows = [helpsteer("Q", str(i), 0, i, 0, 0, 0) for i in range(4)]
    pairs = pairs_from(rows, objective="correctness")
    assert len(pairs) == 6 and {pair.group for pair in pairs} == {"rows:1/correctness"} and pairs[0].id == "rows:1/correctness/1-0"


def test_a_rating_that_is_not_there_is_refused():
    row = {key: value for key, value in HELPSTEER2[0].items() if key != "verbosity"}
    with pytest.raises(InputError, match="rows:1-2: verbosity must be a number from 0 to 4, got None"):
        pairs_from([row, HELPSTEER2[1]], objective="verbosity")


def completion(response: str, score: float, *ratings: str) -> dict[str, Any]:
    notes = {name: {"Rating": rating, "Rationale": "…"} for name, rating in zip(ASPECTS, ratings, strict=True)}
    return {"model": "m", "response": response, "overall_score": score, "fine-grained_score": 1.0, "annotations": notes}


# In the form of openbmb/UltraFeedback: ratings are text, and "N/A" where there is none.
ULTRAFEEDBACK = [
    {
        "instruction": "Q1",
        "completions": [
            *(completion("a", 9, "5", "3", "2", "N/A"), completion("b", 7, "4", "3", "4", "1")),
            *(completion("c", 3, "1", "3", "2", "5"), completion("d", 2, "1", "3", "1", "1")),
        ],
    },
    {"instruction": "Q2", "completions": [completion("a", 1, "1", "1", "1", "2"), completion("b", 2, "2", "1", "1", "3")]},
]


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("aspect", "expected"),
    [
        ("helpfulness", ["ab", "ac", "ad", "bc", "bd", "ba"]),
        ("honesty", ["ba", "ad", "bc", "bd", "cd"]),
        ("truthfulness", ["cb", "cd", "ba"]),
    ],
)
def test_ultrafeedback_by_an_aspect(aspect: Objective, expected: list[str]):
    pairs = pairs_from(ULTRAFEEDBACK, objective=aspect)
    assert [pair.chosen[-1].content + pair.rejected[-1].content for pair in pairs] == expected
    assert {pair.objective for pair in pairs} == {aspect}
    assert [pair.objective for pair in pairs_from(ULTRAFEEDBACK)] == [None] * 7  # by overall_score


def test_an_answer_without_a_rating_is_counted():
    with pytest.warns(UserWarning, match="3 comparisons left out where an answer has no rating"):
        found = pairs_from(ULTRAFEEDBACK, objective="truthfulness")
    assert [pair.id for pair in found] == ["rows:1/truthfulness/2-1", "rows:1/truthfulness/2-3", "rows:2/truthfulness"]  # places in the row
    rows = [{"instruction": "Q", "completions": [{"response": "a", "overall_score": 1.0}] * 2}]
    with pytest.raises(InputError, match=r"rows:1: completions must hold annotations: \{honesty: \{Rating\}\}, got None"):
        pairs_from(rows, objective="honesty")


def test_rows_that_are_not_rated_by_it_are_refused():
    row = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    with pytest.raises(InputError, match=r"rows:1: rows of the schema responses are not rated by honesty; these are: HelpSteer \(.*UltraF"):
        pairs_from([row], objective="honesty")
    (pair,) = pairs_from([row | {"objective": "honesty"}], objective="honesty")  # the row's own label
    assert pair.objective == "honesty"
    with pytest.raises(InputError, match="Anthropic/hh-rlhf: no honesty pairs; it has helpful, harmless"):
        load_pairs("Anthropic/hh-rlhf", objective="honesty")


# Labels that say that neither answer is better


def test_ties_of_a_judge_are_no_pairs():
    # argilla/distilabel-intel-orca-dpo-pairs: where the status is tie, which answer is called chosen says nothing.
    rows = [{"system": "", "input": f"Q{i}", "chosen": "a", "rejected": "b", "status": status} for i, status in enumerate(STATUSES)]
    with pytest.warns(UserWarning, match="1 comparisons left out where the status of the row is tie"):
        assert [pair.id for pair in pairs_from(rows)] == ["rows:1", "rows:3"]


STATUSES = ("unchanged", "tie", "swapped")


def test_votes_in_which_a_judge_contradicted_itself_are_ties():
    # lmsys/mt_bench_human_judgments, split gpt4_pair.
    sides = {f"conversation_{name}": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": name}] for name in "ab"}
    with pytest.warns(UserWarning, match="1 comparisons left out where the vote is a tie"):
        assert len(pairs_from([sides | {"winner": winner, "turn": 1} for winner in ("tie (inconsistent)", "model_a")])) == 1
