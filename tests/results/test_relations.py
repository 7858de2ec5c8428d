"""What the parts of an entry owe each other: each relation, broken by itself in an entry that is sound, is named in one line."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
from helpers.hostile_runs import whole_run

from tl_reward.results.disk.relations import MOST_LAYERS, entry_fault

Break = Callable[[Any], object]


def fault_of_first(section: str, change: Break, *, kept: int = 0) -> str | None:
    """The fault of the section's entry number `kept`, once it is changed."""
    run = whole_run()
    name, entry = [*cast(Any, run.sections)[section].items()][kept]
    entry = deepcopy(entry)
    change(entry)
    return entry_fault(section, entry, lambda key: run.tensors.get(f"{section}/{name}/{key}"))


def put(*path: str | int, value: Any) -> Break:
    """Sets what is at a path of keys and places."""

    def change(entry: Any) -> None:
        for key in path[:-1]:
            entry = entry[key]
        entry[path[-1]] = value

    return change


def dropped(*path: str | int) -> Break:
    """Takes out what is at a path."""

    def change(entry: Any) -> None:
        for key in path[:-1]:
            entry = entry[key]
        del entry[path[-1]]

    return change


def added(*path: str | int, value: Any) -> Break:
    """Puts one more at the end of the list at a path."""

    def change(entry: Any) -> None:
        for key in path:
            entry = entry[key]
        entry.append(value)

    return change


def at_no_number(entry: Any) -> None:
    precision = entry["methods"]["gradient"]["agreement"]["precision"]
    precision["all"] = next(iter(precision.values()))


def chosen_has_other_neurons(entry: Any) -> None:
    next(each for each in entry["tried"] if each["chosen"])["neurons"] += 1


def nothing_chosen_but_edited(entry: Any) -> None:
    entry["chosen"] = None
    for each in entry["tried"]:
        each["chosen"] = False


LESS = {"value": 0.5, "low": 0.4, "high": None, "n": 3}
BROKEN: dict[str, tuple[str, Break, str]] = {
    "one end": ("scores", put("accuracy", value=LESS), "an interval has one end, or is of no number"),
    "of no number": ("scores", put("accuracy", value=LESS | {"value": None, "high": 0.6}), "an interval has one end, or is of no number"),
    "tension's neuron": ("tension", added("top", "shared", value=[0, 48]), "it names a neuron [0, 48], which a model of 2 layers with 48"),
    "overlap's neuron": ("overlap", added("top", "mixed", value=[2, 0]), "it names a neuron [2, 0], which a model of 2 layers with 48"),
    "examples' neuron": ("examples", put("neurons", 0, value=[0, -1]), "it names a neuron [0, -1], which a model of 2 layers with 48"),
    "exact neuron": ("attribution", put("exact", 0, "neurons", 0, value=[0]), "it names a neuron [0], which a model of 2 layers with 48"),
    "effects' neuron": ("effects", put("effects", 0, "neurons", 0, value=[-1, 0]), "it names a neuron [-1, 0], which a model of"),
    "no statistic": ("discovery", put("computed", value=[]), "computed does not name a statistic as site/statistic"),
    "no shape": ("discovery", added("shape", value=3), "shape is not that of layers and units"),
    "words": ("examples", dropped("words_in", 0), "words are not those of 20 neurons"),
    "a word": ("examples", put("words_in", 0, 0, value=["a", "b"]), "words are not each a token and a number"),
    "no tokens": ("examples", put("transcripts", 0, "tokens", value=[]), "a transcript has no response"),
    "no response": ("examples", put("transcripts", 0, "response_start", value=10_000), "a transcript has no response"),
    "no side": ("examples", put("transcripts", 0, "sides", value=[]), "a transcript has pairs without a side or an objective"),
    "best": ("attribution", put("best", value="guess"), "best is 'guess', which is none of its methods"),
    "estimated": ("attribution", put("exact", 0, "estimated", value={}), "exact effects are estimated by other methods than its own"),
    "nothing exact": ("attribution", put("exact", value=[]), "exact effects are estimated by other methods than its own"),
    "precision": ("attribution", at_no_number, "agreement has its precision at different k"),
    "effects": ("effects", dropped("effects", 0), "effects are not those of its sets"),
    "by objective": ("effects", put("effects", 0, "by_objective", value={}), "by_objective of its effects differ in their objectives"),
    "one objective": ("tension", put("objectives", value=["harmless", "harmless"]), "objectives are 2, not two"),
    "an objective alone": ("tension", put("objectives", value=["harmless"]), "objectives are 1, not two"),
    "prompts": ("tension", put("prompts", value={"harmless": 4}), "pairs or prompts are not told of each objective"),
    "a point": ("sets", put("sets", "top shared", "random_by_objective", value={}), "a point lacks an objective that the clean scores"),
    "its point": (
        "ablation", lambda entry: entry["clean"]["objectives"].update(helpful=entry["clean"]),
        "a point lacks an objective that the clean scores have",
    ),
    "no layers": ("overlap", put("n_layers", value=0), "it is of 0 layers of 48 neurons"),
    "no sets": ("overlap", put("top", value={}), "it compares no sets"),
    "another set": ("overlap", put("pairs", 0, "a", value="other"), "it compares sets that it does not have"),
    "aligned": ("patching", dropped("aligned", "aligned"), "aligned lacks what has a counterpart and what has none"),
    "no such layer": ("patching", put("cells", 0, "layer", value=MOST_LAYERS), "a patch is at no layer or head: they are numbered from 0"),
    "no such head": ("patching", put("cells", 0, "unit", value=-1), "a patch is at no layer or head: they are numbered from 0"),
    "depths": ("lens", dropped("agreement", 0), "it does not have one estimate a depth"),
    "pairs": ("lens", dropped("decided_at_depth", 0), "it does not have one number a pair"),
    "tokens": ("lens", dropped("shown", 0, "chosen", "tokens", 0), "it does not have one reward a token"),
    "objectives": ("repair", added("objectives", value="safety"), "objectives are not two or more different ones"),
    "tested": ("repair", put("evidence", 0, "tested", value="taste"), "it tests 'taste', which is no objective"),
    "evidence": ("repair", dropped("evidence", 0), "evidence does not have the repair once on each objective"),
    "shifts": ("repair", put("shifts", "taste", value=[]), "shifts are of what was not tested"),
    "tried": ("repair", put("tried", 0, "margin", value={}), "a candidate was not tried on each objective"),
    "chosen": ("repair", chosen_has_other_neurons, "what is chosen is not one of those tried"),
    "edited": ("repair", nothing_chosen_but_edited, "neurons are edited where nothing is chosen"),
}  # fmt: skip


@pytest.mark.parametrize("section", {section: None for section, _, _ in BROKEN.values()})
def test_a_sound_entry_has_no_fault(section: str):
    assert fault_of_first(section, lambda entry: None) is None


@pytest.mark.parametrize(("section", "change", "fault"), BROKEN.values(), ids=BROKEN)
def test_a_broken_relation_is_named(section: str, change: Break, fault: str):
    found = fault_of_first(section, change)
    assert found is not None and found.startswith(fault)


def test_tokens_are_those_that_are_patched():
    assert fault_of_first("patching", lambda entry: None, kept=1) is None
    assert fault_of_first("patching", dropped("tokens", 0), kept=1) == "its tokens are not those that are patched"


def test_a_patching_without_patches():
    run = whole_run()
    name, entry = next(iter(run.section("patching").items()))
    tensors = {key: run.tensors[f"patching/{name}/{key}"][:0] for key in ("noised", "denoised")}
    assert entry_fault("patching", entry | {"cells": []}, tensors.get) == "it has no patch"
