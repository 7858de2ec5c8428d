"""Benchmarks as they are published: small rows in their own form, read from the hub's name and split, and counted as published."""

import numpy as np
import pytest
from helpers.study_runs import make_data, table

from tl_reward.data.sources import hub
from tl_reward.measures.scores import Scores
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.config import parse_config
from tl_reward.study.matrix import Matrix, Model, ModelEdit
from tl_reward.study.published import first_shares, ties_scores
from tl_reward.study.report.all_tables import tables_of

SOURCES = {
    "RewardBench": [{"source": "allenai/reward-bench", "split": "filtered"}],
    "RewardBench 2": [{"source": "allenai/reward-bench-2", "split": "test"}],
    "RM-Bench": [{"source": "THU-KEG/RM-Bench", "split": "train"}],
}


def pair(number: int, subset: str) -> dict:
    return {
        "prompt": f"Q{number}",
        "chosen": "Yes.",
        "chosen_model": "a",
        "rejected": "No.",
        "rejected_model": "b",
        "subset": subset,
        "id": number,
    }


def best(name: str, right: int, wrong: int, subset: str) -> dict:
    return {
        "id": name,
        "prompt": f"Which, {name}?",
        "chosen": [f"Right {i}." for i in range(right)],
        "rejected": [f"Wrong {i}." for i in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "total_completions": right + wrong,
        "models": ["m"],
        "subset": subset,
        "additional_metadata": {"category": None},
    }


def styled(name: str, domain: str) -> dict:
    sides = {side: [f"{side} short", f"{side} long", f"{side} **long**"] for side in ("chosen", "rejected")}
    return {"id": name, "prompt": f"Please, {name}", **sides, "domain": domain}


PUBLISHED = {
    ("allenai/reward-bench", "filtered"): [
        pair(0, "alpacaeval-easy"), pair(1, "llmbar-adver-manual"), pair(2, "hep-go"), pair(3, "donotanswer"),
    ],
    ("allenai/reward-bench-2", "test"): [
        best("12", 1, 3, "Focus"), best("13", 1, 3, "Safety"), best("ref:0", 1, 4, "Ties"), best("tied:0", 3, 4, "Ties"),
        best("ref:1", 1, 4, "Ties"), best("tied:1", 2, 4, "Ties"), best("ref:2", 1, 4, "Ties"),
    ],
    ("THU-KEG/RM-Bench", "train"): [styled("7", "chat"), styled("math/9", "math"), styled("safety-refuse/1", "safety-refuse")],
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    data = make_data(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_loaded", lambda hub_id, name, folder, split: PUBLISHED[hub_id, split])
        patch.setattr(hub, "_reached", lambda: True)
        made = Inputs(parse_config(table(data) | {"benchmarks": SOURCES}), data)
        for name in SOURCES:
            made.tested(name, "", False)
        yield made


def test_rows_in_the_published_form_find_their_sub_tasks(inputs):
    counts = {
        name: dict(zip(*np.unique([*inputs.tested(name, "", False).tasks.values()], return_counts=True), strict=True)) for name in SOURCES
    }
    assert counts == {
        "RewardBench": {
            "RewardBench AlpacaEval easy": 1,
            "RewardBench LLMBar adversarial": 1,
            "RewardBench HumanEvalPack": 1,
            "RewardBench Do Not Answer": 1,
        },
        "RewardBench 2": {
            "RewardBench 2 Focus": 3,
            "RewardBench 2 Safety": 3,
            "RewardBench 2 Ties": 4 + 12 + 4,
        },  # of each sub-task three rows
        "RM-Bench": {"RM-Bench chat": 9, "RM-Bench math": 9, "RM-Bench safety-refuse": 9},
    }


def rewarded(by_row: dict[str, tuple[list[float], list[float]]]) -> Scores:
    """Every right answer of a row with every wrong one."""
    rows = [(name, i, j, c, r) for name, (good, bad) in by_row.items() for i, c in enumerate(good) for j, r in enumerate(bad)]
    groups = tuple(row[0] for row in rows)
    chosen, rejected = (np.array([row[k] for row in rows]) for k in (3, 4))
    return Scores(tuple(f"{name}/{i}-{j}" for name, i, j, *_ in rows), chosen, rejected, groups, ("",) * len(rows))


def test_ties_have_the_published_score():
    """By the published formula: 0.3 accuracy of tied and of ref rows each, 0.2 and 0.2 for gaps wider than the spread, 0.01 tanh."""
    scores = rewarded(
        {
            "ref:0": ([5.0], [1.0, 2.0]),  # gap 3
            "tied:0": ([4.0, 3.0], [1.0, 0.0]),  # spread 1, gap 2: all of it, and tanh(2 / 1 - 1)
            "ref:1": ([2.0], [1.5]),  # gap 0.5
            "tied:1": ([4.0, 3.0], [1.0]),  # spread 1, gap 2; the smaller gap is 0.5: not the hard one
            "ref:2": ([0.0], [1.0]),  # wrong
            "tied:2": ([2.0, 2.0], [1.0]),  # spread 0, gap 1; the smaller gap is -1, over 0
            "ref:3": ([1.0], [0.0]),
            "tied:3": ([2.0, 0.0], [1.0]),  # spread 2, gap -1: ref alone
            "tied:4": ([2.0, 2.0], [1.0]),  # has no ref
        }
    )
    by_hand = {
        "tied:0": 1.0 + 0.01 * np.tanh(1.0),
        "tied:1": 0.8 + 0.01 * np.tanh(-0.5),
        "tied:2": 0.3 + 0.2 - 0.01,
        "tied:3": 0.3 + 0.01 * np.tanh(-1.5),
    }
    assert ties_scores(scores) == pytest.approx(by_hand)
    # As the publication has it: each part a mean over all prompts, then weighted.
    tied, ref, wider, hard = ([1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 0])
    tanh = np.mean([np.tanh(1.0), np.tanh(-0.5), -1, np.tanh(-1.5)])
    whole = 0.3 * np.mean(tied) + 0.3 * np.mean(ref) + 0.2 * np.mean(wider) + 0.2 * np.mean(hard) + 0.01 * tanh
    assert np.mean([*ties_scores(scores).values()]) == pytest.approx(whole)
    accuracy = tables_of(Matrix({(Model("m", "mixed", 0), ModelEdit()): {"RewardBench 2 Ties": scores}}))[0]
    assert float(str(accuracy.rows[0][4]).split()[0]) == pytest.approx(whole, abs=5e-4)


def test_ties_of_the_published_rows_are_read_as_such(inputs):
    tested = inputs.tested("RewardBench 2", "", False)
    some = [each for each in tested.pairs if tested.tasks[each.id] == "RewardBench 2 Ties"]
    scores = Scores.of(some, [1.0] * len(some), [0.0] * len(some))
    assert ties_scores(scores) == {"tied:0": pytest.approx(1.01)}


def test_a_right_answer_that_shares_the_highest_reward_counts_by_how_many_share_it():
    scores = rewarded({"a": ([1.0], [0.0, 0.5, 0.9]), "b": ([1.0], [1.0, 1.0, 0.0]), "c": ([1.0], [1.0, 2.0, 0.0])})
    assert first_shares(scores) == pytest.approx({"a": 1, "b": 1 / 3, "c": 0})
