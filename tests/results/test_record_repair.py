"""A repair in a run: it comes back as it was, and a damaged one is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.repairs import OBJECTIVES, PROTECTED, made_up_repair, real_repair

from tl_reward.errors import InputError
from tl_reward.repairing.result import Repair
from tl_reward.results.record_edits import record_repair
from tl_reward.results.store import Results


def recorded(found: Repair) -> Results:
    results = Results()
    record_repair(results, "mixed", found)
    return results


@pytest.mark.parametrize("make", [made_up_repair, lambda: made_up_repair(edited=False), real_repair], ids=["edited", "no edit", "real"])
def test_a_repair_comes_back_as_it_was(make: Callable[[], Repair], tmp_path: Path):
    found = make()
    again = Results.load(recorded(found).save(tmp_path / "run"))
    entry = again.entry("repair", "mixed")
    tested = list(dict.fromkeys(each.tested for each in found.evidence))
    about = {"model": "mixed", "dataset": ", ".join(tested)}
    assert entry == json.loads(json.dumps(about | found.to_json()))
    gates = again.tensor("repair", "mixed", "gates")
    assert gates.dtype == torch.float32 and torch.equal(gates, found.gates)
    assert entry["gates"] == [found.gates[place].item() for place in found.neurons] and [*map(tuple, entry["neurons"])] == [*found.neurons]
    assert sum(each["chosen"] for each in entry["tried"]) == (found.chosen is not None)


def test_a_model_of_several_outputs_is_called_by_both_names():
    results = recorded(replace(made_up_repair(), output="safety"))
    assert results.entry("repair", "mixed · safety").get("output") == "safety"


def test_a_run_holds_one_repair_of_a_model():
    results = recorded(made_up_repair())
    with pytest.raises(InputError, match="this run has repair of mixed already"):
        record_repair(results, "mixed", made_up_repair(edited=False))


def _other_objective(entry: dict[str, Any]) -> None:
    entry["evidence"][0]["tested"] = "somebody's"


def _protected_objective(entry: dict[str, Any]) -> None:
    entry["evidence"][0]["protected"] = True


def _untested(entry: dict[str, Any]) -> None:
    entry["evidence"] = [row for row in entry["evidence"] if row["tested"] != PROTECTED[0]]


def _twice(entry: dict[str, Any]) -> None:
    entry["evidence"].append(entry["evidence"][0])


def _chosen(which: str | None, marked: bool = True) -> Callable[[dict[str, Any]], None]:
    def damage(entry: dict[str, Any]) -> None:
        entry["chosen"] = which
        for each in entry["tried"]:
            each["chosen"] = marked and each["name"] == which

    return damage


def _not_marked(entry: dict[str, Any]) -> None:
    for each in entry["tried"]:
        each["chosen"] = False


def _of_one(entry: dict[str, Any]) -> None:
    entry["tried"][3]["margin"].pop(OBJECTIVES[0])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda entry: entry.update(shape=[2, 47]), r"its tensor gates has the shape \[2, 48\], not \[2, 47\]"),
        (lambda entry: entry.update(shape=[96]), r"its tensor gates has the shape \[2, 48\], not \[96\]"),
        (lambda entry: entry["neurons"].pop(), "its neurons and gates are not those of its tensor gates"),
        (lambda entry: entry["neurons"].append([1, 47]), "its neurons and gates are not those of its tensor gates"),
        (lambda entry: entry["neurons"].reverse(), "its neurons and gates are not those of its tensor gates"),
        (lambda entry: entry["gates"].append(0.5), "its neurons and gates are not those of its tensor gates"),
        (lambda entry: entry["gates"].__setitem__(0, 0.25), "its neurons and gates are not those of its tensor gates"),
        (lambda entry: entry.update(objectives=["helpful"]), "objectives are not two or more different ones"),
        (lambda entry: entry.update(objectives=["helpful", "harmless", PROTECTED[0]]), "none of which is a protected set"),
        (_other_objective, "it tests \"?'?somebody's'?\"?, which is no objective"),
        (_protected_objective, "it tests 'helpful', which is no protected set"),
        (_untested, "evidence does not have the repair once on each objective and each protected set"),
        (_twice, "evidence does not have the repair once on each objective and each protected set"),
        (lambda entry: entry["shifts"].update(others=[]), "shifts are of what was not tested"),
        (_of_one, "a candidate was not tried on each objective"),
        (_chosen("nobody"), "what is chosen is not one of those tried"),
        (_chosen("hurting all, to 0, 1 neurons"), "with as many neurons as are edited"),
        (_not_marked, "what is chosen is not one of those tried"),
        (_chosen(None), "neurons are edited where nothing is chosen"),
        (lambda entry: entry["evidence"][0].update(verdict="splendid"), "evidence.0.verdict is wrong"),
        (lambda entry: entry.pop("rule"), "rule is missing"),
    ],
)
def test_a_damaged_repair_is_refused_in_a_line(damage: Callable[[dict[str, Any]], object], says: str):
    found = made_up_repair()
    entry = json.loads(json.dumps({"model": "mixed", "dataset": "d"} | cast(dict[str, Any], found.to_json())))
    Results().add("repair", "mixed", entry, {"gates": found.gates})
    damage(entry)
    with pytest.raises(InputError, match=f"repair of '?mixed'?: .*{says}.*, so it cannot be part of a run") as said:
        Results().add("repair", "mixed", entry, {"gates": found.gates})
    assert "\n" not in str(said.value)


def test_an_edit_of_no_neuron_is_refused():
    entry = json.loads(json.dumps({"model": "mixed", "dataset": "d"} | cast(dict[str, Any], made_up_repair(edited=False).to_json())))
    entry["chosen"] = entry["tried"][0]["name"]
    entry["tried"][0] |= {"chosen": True, "neurons": 0}
    with pytest.raises(InputError, match="neurons are edited where nothing is chosen, or none where an edit is"):
        Results().add("repair", "mixed", entry, {"gates": torch.ones(2, 48)})


@pytest.mark.parametrize(
    ("gate", "says"), [(-0.5, r"holds numbers outside \[0, inf\]"), (float("nan"), "holds a number that is not finite")]
)
def test_gates_that_no_edit_has_are_refused(gate: float, says: str):
    found = made_up_repair()
    gates = found.gates.clone()
    gates[0, 0] = gate
    entry = {"model": "mixed", "dataset": "d"} | cast(dict[str, Any], found.to_json())
    with pytest.raises(InputError, match=f"its tensor gates {says}"):
        Results().add("repair", "mixed", entry, {"gates": gates})
