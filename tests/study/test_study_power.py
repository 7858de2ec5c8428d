"""What a plan says of claims before anything runs: against half-widths known by hand."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from helpers.study_matrices import HELPFUL, TOP
from helpers.study_runs import make_data, table
from rich.console import Console

from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores
from tl_reward.model import embedded
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.compute.dealing import longest
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.plan import print_reproduction_plan
from tl_reward.study.config import parse_config
from tl_reward.study.expected import ACCURACY, CHANGED, SubTaskRows, dealt
from tl_reward.study.findings.claims import NEURONS, PROMPTS, Claim, Verdict
from tl_reward.study.matrix import Model, ModelEdit
from tl_reward.study.power import stand_in
from tl_reward.study.power.claims import Power, power_of, powers, print_power, summary

RISES = Claim("it rises", "above", 0.1, "")
NUMBER = Claim("it is 0.7", "number", 0.7, "", tolerance=0.03)
RMB = "RMB harmless pairwise"
HH = "HH-RLHF harmless"


@pytest.mark.parametrize(
    ("claim", "half", "n", "at_hand", "word", "needed"),
    [
        (RISES, 0.04, 100, None, "yes", 64),
        (RISES, 0.05, 100, None, "no", 100),  # just not: at no effect, the interval ends at half of the study's
        (RISES, 0.1, 100, None, "no", 400),
        (RISES, 0.1, 100, 0.3, "as it stands", 400),
        (RISES, 0.1, 100, -0.3, "as it stands", 400),
        (RISES, 0.1, 100, 0.08, "no", 400),
        (RISES, 0.04, 9, None, "no", 10),
        (RISES._replace(study=None), 0.09, 100, None, "yes", 81),
        (RISES._replace(kind="below", study=-0.02), 0.02, 50, None, "no", 200),
        (NUMBER, 0.05, 100, None, "yes", 70),
        (NUMBER, 0.12, 100, None, "no", 400),
        (NUMBER, 0.12, 100, 0.9, "as it stands", 400),  # far off, however wide
    ],
)
def test_what_decides_a_claim(claim, half, n, at_hand, word, needed):
    made = Verdict(claim, Estimate(0.0, -half, half, n), PROMPTS, "")
    known = None if at_hand is None else made._replace(ours=Estimate(at_hand, at_hand, at_hand, 20))
    found = power_of(made, known)
    assert (found.word, found.needed, found.half_width, found.prompts) == (word, needed, half, n)


def test_what_needs_no_rows_and_what_is_lacking():
    assert power_of(Verdict(NUMBER, Estimate(0.7, 0.6, 0.8, 3), NEURONS, "")).word == "needs no rows"
    lacking = power_of(Verdict(NUMBER, None, PROMPTS, "such model"))
    assert (lacking.word, lacking.lacks) == ("not spoken to", "such model")
    words = ["yes", "no", "no", "as it stands", "needs no rows", "not spoken to"]
    assert summary([Power(NUMBER, "no")._replace(word=word) for word in words]) == (
        "Of 6 claims, 5 can be spoken to by this config's models and data: 2 will be decided (1 of them are of neurons, which need no "
        "rows), 1 if ours stay as they are at hand, 2 not."
    )


def test_rows_are_dealt_where_they_decide_most():
    tasks = {"a": SubTaskRows(10**6, 1.0, 0.25), "b": SubTaskRows(10**6, 9.0, 0.25), "c": SubTaskRows(10**6, 1.0, 1.0)}
    rows = dealt(tasks, 0.02)
    error = sum(task.variance / rows[name] for name, task in tasks.items()) ** 0.5 / 3
    assert 1.96 * error == pytest.approx(0.02, rel=1e-2)
    assert rows["a"] / rows["b"] == pytest.approx(3, rel=0.02) and rows["c"] / rows["a"] == pytest.approx(2, rel=0.02)
    cost = sum(task.cost * rows[name] for name, task in tasks.items())
    even = 3 * 1.5 * (1.96 / 0.02 / 3) ** 2  # as many of each, for the same interval: sum of variances over n
    assert cost < sum(task.cost for task in tasks.values()) * even / 3
    # One has too few: it gives all, and the others make up for it; where all have too few, all is taken.
    few = dealt(tasks | {"a": tasks["a"]._replace(rows=500)}, 0.02)
    assert few["a"] == 500 and few["b"] > rows["b"] and few["c"] > rows["c"]
    assert 1.96 * sum(task.variance / few[name] for name, task in tasks.items()) ** 0.5 / 3 == pytest.approx(0.02, rel=1e-2)
    assert dealt({"a": SubTaskRows(30, 1.0, 0.25)}, 0.01) == {"a": 30}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """400 pairs of each sub-task; of those of RMB every second one is long."""
    root = make_data(tmp_path_factory.mktemp("study"))
    (root / "hh-rlhf").mkdir()
    for name, objective, words in (
        ("rmb/helpful", "helpful", 80),
        ("rmb/harmless", "harmless", 80),
        ("hh-rlhf/harmless-base", "harmless", 2),
    ):
        lines = []
        for i in range(400):
            more = " word" * (words if i % 2 or words == 2 else 10 * words)
            row = {"id": f"{objective}{i}", "objective": objective, "chosen": "Yes." + more, "rejected": "No." + more}
            lines.append(json.dumps(row | {"prompt": f"{name} {i}?"}))
        (root / f"{name}-test.jsonl").write_text("\n".join(lines))
    return root


def inputs(data: Path, **limits) -> Inputs:
    own = {name: {"train": ["embedded"], "test": [f"$DATA/rmb/{name}-test.jsonl"]} for name in ("helpful", "harmless")}
    rmb = ["$DATA/rmb/helpful-test.jsonl", "$DATA/rmb/harmless-test.jsonl"]
    base = [{"name": "SmolLM2-135M", "source": str(data / "base")}]
    config = {"data": own, "limits": limits, "benchmarks": {"RMB": rmb, "HH-RLHF": ["$DATA/hh-rlhf/harmless-base-test.jsonl"]}}
    return Inputs(parse_config(table(data) | config | {"rankings": ["mean"], "fractions": [0.1], "bases": base, "retrain": {}}), data)


def rows(made: Inputs, test: str, *, edited: bool, objective: str = "") -> dict[str, int]:
    tasks = [*made.tested(test, objective, edited).tasks.values()]
    return {task: tasks.count(task) for task in dict.fromkeys(tasks)}


def test_a_config_may_ask_for_a_half_width(data):
    made = inputs(data, half_width=0.1)
    each = int(np.ceil(ACCURACY * (1 - ACCURACY) * 19.6**2))  # 88
    alone = int(np.ceil(CHANGED * 19.6**2))  # 193
    assert rows(made, "HH-RLHF", edited=False)[HH] == rows(made, "HH-RLHF", edited=True)[HH] > each
    edited = rows(made, "RMB", edited=True)
    assert edited[HELPFUL] == alone  # the only sub-task of its group
    # Of the other group two: most rows where they are short, and the mean of both has the half-width.
    two = edited[RMB], rows(made, "HH-RLHF", edited=True)[HH]
    assert two[1] > 3 * two[0] and 1.96 * (CHANGED * (1 / two[0] + 1 / two[1])) ** 0.5 / 2 == pytest.approx(0.1, rel=0.02)
    # What edited models are tested on, unedited ones are tested on too.
    assert rows(made, "RMB", edited=False) == {HELPFUL: alone, RMB: max(each, two[0])}
    assert rows(made, OBJECTIVE_TEST, edited=True, objective="mixed") == {OBJECTIVE_TEST: 2 * -(-alone // 2)}
    one = inputs(data, half_width={"HH-RLHF": 0.1}, rows=70)
    assert rows(one, "HH-RLHF", edited=True) == {HH: 70} and rows(one, "RMB", edited=False) == {HELPFUL: 70, RMB: 70}
    for limits, said in (
        ({"half_width": {"RMBench": 0.1}}, "half_width names no benchmark 'RMBench'"),
        ({"half_width": 0}, "must be above 0"),
    ):
        with pytest.raises(InputError, match=said):
            inputs(data, **limits)


def test_edited_models_may_be_given_short_rows_alone(data):
    made = inputs(data, rows=40, edited_max_length=256)
    short = {pair.id for pair in made.tested("RMB", "", True).pairs}
    assert len(short) == 80 and all(int(name.removeprefix("helpful").removeprefix("harmless").split("#")[0]) % 2 for name in short)
    both = made.tested("RMB", "", False).pairs
    assert short < {pair.id for pair in both} and len(both) == 80 + 40  # the first 40 of each, and the short ones among the next
    assert rows(made, "HH-RLHF", edited=True) == {HH: 40}
    one = inputs(data, rows=40, edited_max_length={"RMB": 256})
    assert one.tested("RMB", "", True).hash == made.tested("RMB", "", True).hash
    assert one.tested(OBJECTIVE_TEST, "mixed", True).hash == inputs(data, rows=40).tested(OBJECTIVE_TEST, "mixed", True).hash
    assert [longest(one.config, test, edited) for test, edited in (("RMB", True), ("RMB", False), ("HH-RLHF", True))] == [256, None, None]
    with pytest.raises(InputError, match="edited_max_length names no benchmark 'RMBench'"):
        inputs(data, edited_max_length={"RMBench": 256})
    with pytest.raises(InputError, match=r"limits\.edited_max_length = 1 leaves no row of RMB"):
        inputs(data, edited_max_length=1).tested("RMB", "", True)


def find(found: list[Power], start: str) -> Power:
    (only,) = [each for each in found if each.claim.text.startswith(start)]
    return only


COSTS = "SmolLM2-135M: zeroing the helpful model's top 10 % by magnitude costs Helpful"


def test_half_widths_are_those_of_the_configs_rows(data, tmp_path):
    found = powers(inputs(data, rows=100), tmp_path)
    own = find(found, "SmolLM2-135M: the helpful model has 70.3%")
    assert own.prompts == 100 and own.half_width == pytest.approx(1.96 * (ACCURACY * (1 - ACCURACY) / 100) ** 0.5, rel=0.15)
    assert (own.word, own.decides_at) == ("no", 0.06) and own.needed == pytest.approx(100 * (own.half_width / 0.06) ** 2, abs=1)
    assert find(found, COSTS).half_width == pytest.approx(1.96 * (CHANGED / 100) ** 0.5, rel=0.15)
    fewer = find(powers(inputs(data, rows=25), tmp_path), COSTS)
    assert fewer.half_width == pytest.approx(find(found, COSTS).half_width * 2, rel=0.25)
    assert find(found, "helpful and harmless share more").word == "needs no rows"
    assert find(found, "SmolLM2-1.7B: the mixed model").word == "not spoken to"


def same(pairs: list[PreferencePair], right: list[bool]) -> Scores:
    return Scores.of(pairs, [1.0 if each else -1.0 for each in right], [0.0] * len(pairs))


def test_scores_at_hand_go_before_the_defaults_and_stay_paired(data, tmp_path, monkeypatch):
    made = inputs(data, rows=100)
    some = [pair for pair in made.tested("RMB", "", True).pairs if pair.objective == "helpful"][:20]
    model, right = Model("SmolLM2-135M", "helpful", 0), [i % 4 > 0 for i in range(20)]
    worse = [each and i % 10 > 0 for i, each in enumerate(right)]
    for after, half in ((right, 0.0), (worse, 1.96 * (0.05 * 0.95 / 100) ** 0.5)):  # one row in twenty changes, always to the wrong side
        held = {("RMB", ""): {(model, ModelEdit()): {HELPFUL: same(some, right)}, (model, TOP): {HELPFUL: same(some, after)}}}
        monkeypatch.setattr(stand_in, "_held", lambda *args, held=held: held)
        assert find(powers(made, tmp_path), COSTS).half_width == pytest.approx(half, rel=0.2, abs=1e-9)


def printed(made: Inputs, out: Path) -> str:
    text = StringIO()
    console = Console(file=text, markup=False, width=200)
    print_reproduction_plan(made, out, console)
    print_power(made, out, console)
    return text.getvalue()


def test_a_plan_needs_no_model_and_no_download(data, tmp_path, monkeypatch):
    def download(folder):
        raise AssertionError("a plan has no need of weights")

    monkeypatch.setattr(embedded, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(embedded, "_prepare", download)
    made = inputs(data, rows=30)
    base = {"name": "SmolLM2-135M-Instruct", "source": embedded.BASE, "shipped": True}
    config = parse_config(table(data) | {"bases": [base], "benchmarks": {}, "retrain": {}, "limits": {"rows": 20}})
    text = printed(Inputs(config, data), tmp_path / "out")
    assert "Tokens of SmolLM2-135M-Instruct are estimates, of 4 characters each: no tokenizer is at hand." in text
    assert "time unknown" not in text and not (tmp_path / "cache").exists() and not (tmp_path / "out").exists()
    text = printed(made, tmp_path / "out")
    assert "are estimates" not in text
    assert "needs about" in text and "Of 80 claims, " in text and "right at 0.65 and change sides at 0.5" in text
