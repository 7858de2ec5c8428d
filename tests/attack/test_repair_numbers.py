"""Evidence of a repair on pairs drawn at random, with ties, few prompts, answers in several pairs: always that of plain loops."""

from typing import Any

import numpy as np
import pytest
from helpers.attack import tries
from helpers.plain_evidence import Plain, Row, verdict

from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.battery import Answers, battery
from tl_reward.repairing.evidence.compared import compared


def drawn(seed: int) -> tuple[list[Row], Answers]:
    random = np.random.default_rng(seed)
    pairs, prompts, answers = int(random.integers(1, 120)), int(random.integers(1, 30)), int(random.integers(2, 20))
    steps = random.choice([0.001, 0.5, 2.0])
    rewards = np.round(random.normal(size=(2, prompts, answers)) / steps) * steps + random.choice([0, 1e4])
    lengths = random.integers(1, random.choice([2, 5, 200]), size=(prompts, answers)).astype(float)
    subsets = random.choice(["", "s", "t"], size=prompts)  # of some, too few prompts for a figure of their own
    rows: list[Row] = []
    sides: list[list[int]] = []
    for i in range(pairs):
        at = int(random.integers(prompts))
        one, other = random.choice(answers, size=2, replace=False).tolist()
        sides.append([at * answers + one, at * answers + other])
        before, after = ((float(each[at, one]), float(each[at, other])) for each in rewards)
        long = float(lengths[at, one]), float(lengths[at, other])
        rows.append(Row(f"p{i}", f"p{i}", f"prompt {at}", str(subsets[at]), ((at, one), (at, other)), long, before, after))
    chosen, rejected = np.array(sides).T
    return rows, Answers(chosen, rejected, lengths.ravel())


def scores(rows: list[Row], rewards: list[tuple[float, float]]) -> Scores:
    chosen, rejected = np.array(rewards).T
    named = {name: tuple(getattr(row, name) for row in rows) for name in ("id", "group", "subset", "prompt")}
    return Scores(named["id"], chosen, rejected, named["group"], named["subset"], prompts=named["prompt"])


@pytest.mark.parametrize("seed", range(tries(6, 200)))
def test_evidence_is_that_of_plain_loops(seed: int):
    rows, answers = drawn(seed)
    before, after = scores(rows, [row.before for row in rows]), scores(rows, [row.after for row in rows])
    plain = Plain(rows, intervals=seed % 3 == 0)
    found = compared("repaired", "", "", before, after, protected=False).to_json()
    same(found["accuracy"], plain.accuracy(), plain.intervals)
    same(found["margin"], plain.margin(), plain.intervals)
    shifts = {each.name: each.to_json() for each in battery(before, after, answers)}
    expected = plain.shifts()
    assert set(shifts) == set(expected)
    for name, shift in shifts.items():
        same(shift, expected[name], plain.intervals)
        assert shift["verdict"] == verdict(shift)


def same(found: Any, expected: Any, intervals: bool) -> None:
    for name in ("before", "after", "difference"):
        for part in ("value", "n", *(("low", "high") if intervals else ())):
            one, other = found[name][part], expected[name][part]
            assert one == (other if other is None else pytest.approx(other, abs=1e-6)), (name, part)
