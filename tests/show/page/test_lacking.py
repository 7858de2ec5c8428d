"""The commands that the page names for what a run lacks: the command line takes each of them."""

import shlex

import pytest
import torch
from helpers.page_runs import random_run, tiny_run
from helpers.partial_runs import put

from tl_reward.cli import main
from tl_reward.neurons import NeuronSet
from tl_reward.results.sections import SECTIONS
from tl_reward.results.store import Results
from tl_reward.show.page.lacking import asked_for, missing_of


def of_scores(model: str, **told: str) -> Results:
    results = Results(provenance={"models": {model: told}})
    entry = next(iter(tiny_run().section("scores").values())) | {"model": model}
    put(results, "scores", f"{model} · pairs", entry, {side: torch.zeros(6) for side in ("chosen", "rejected")})
    return results


OWN = "armo · help fulness"
RUNS = {  # made when a test asks for one, and not when this file is read
    "nothing": Results,
    "scores": lambda: of_scores("helpful"),
    "a model of one's own, read by one of its outputs": lambda: of_scores(
        "armo · help fulness", path="/home/me/armo", output="help fulness"
    ),
    "an edited one": lambda: of_scores("mixed + halve_late + Quieter", path="/tl_reward/model/adapters/mixed"),
    "numbers of neurons": lambda: random_run(3, 20, models=("mixed", "harmless")),
    "whole": tiny_run,
}


@pytest.mark.parametrize("name", RUNS)
def test_the_command_line_takes_every_command(name, monkeypatch):
    run, parsed = RUNS[name](), []
    monkeypatch.setattr("tl_reward.cli.entry._run", parsed.append)
    lacks = missing_of(run, None)
    for each in lacks:
        program, *arguments = shlex.split(each["command"])
        assert program == "tl-reward" and main(arguments) == 0
    assert len(parsed) == len(lacks)
    for command in parsed:
        assert NeuronSet.parse(getattr(command, "neurons", ())).shape is None
    edited = any(" + " in name for name in run.models())
    lacking = {section for section in SECTIONS if section not in run.sections} - {"study"} - ({"repair"} if edited else set())
    assert {each["command"].rpartition("/")[2] for each in lacks} == lacking


def test_neurons_to_edit_are_those_with_the_largest_effects():
    run = random_run(3, 20)
    (command,) = [each["command"] for each in missing_of(run, "mixed") if "effects" in each["command"] and "--neurons" in each["command"]]
    effect = run.tensor("tension", "mixed · random numbers", "harmless/effect").abs()
    expected = [f"{layer}.{neuron}" for layer, neuron in NeuronSet.top(effect, k=3)]
    assert command == f"tl-reward effects mixed --neurons {' '.join(expected)} --out runs/effects"


def test_the_other_model_is_one_of_the_run():
    commands = [each["command"] for each in missing_of(random_run(3, 20, models=("mixed", "harmless")), "mixed")]
    assert "tl-reward patch-models mixed harmless --out runs/model_patching" in commands


@pytest.mark.parametrize(
    ("label", "told", "expected"),
    [
        ("mixed + halve_late", {"path": "/anywhere/tl_reward/model/adapters/mixed"}, "mixed --intervention MODULE:halve_late"),
        ("mine + A + B · safe", {"path": "/me/mine", "output": "safe"}, "mine=MODEL --intervention MODULE:A MODULE:B --output safe"),
        ("a + b-c", {"path": "a + b-c"}, "'a + b-c'"),  # a name of a folder, not an edit: no function is called so
    ],
)
def test_an_edited_models_command_names_its_edits(label, told, expected):
    assert " ".join(asked_for(of_scores(label, **told), label)) == expected
