"""A run folder that an earlier version wrote: `run_format_2`, of tiny models, by the code at commit 185d298, with every section.

Runs are kept for years; what reads them has to go on reading them.
"""

import json
import shutil
from pathlib import Path

import pytest
from helpers.page_runs import document
from rich.console import Console

from tl_reward.errors import InputError
from tl_reward.results.record_edits import sets_of
from tl_reward.results.record_examples import neurons_to_show
from tl_reward.results.record_neurons import discovery_of, ranking_of
from tl_reward.results.store import SECTIONS, Results
from tl_reward.show.neuron_columns import mean_of, shape_of
from tl_reward.show.page import build_page
from tl_reward.show.run_tables import summary

FOLDER = Path(__file__).parent / "run_format_2"


@pytest.fixture(scope="module")
def run() -> Results:
    return Results.load(FOLDER)


def test_it_holds_every_section_and_is_written_as_it_was(run: Results, tmp_path: Path):
    assert set(run.sections) <= set(SECTIONS)  # later sections it does not have
    folder = run.save(tmp_path / "run")
    assert (folder / "tensors.safetensors").read_bytes() == (FOLDER / "tensors.safetensors").read_bytes()
    document = json.loads((folder / "results.json").read_text())
    assert [each["sentence"][:18] for each in document.pop("findings")] == ["The rank correlati"]  # it has none: they follow from the rest
    assert json.dumps(document, indent=1) + "\n" == (FOLDER / "results.json").read_text()


def test_its_models_are_told_by_every_section(run: Results):
    assert run.models() == {"helpful", "harmless", "mixed", "helpful into mixed"}
    assert shape_of(run, "mixed") == (2, 48) and shape_of(run, "nobody") is None
    mean = mean_of(run, "mixed")
    assert mean is not None and mean.equal(run.tensor("discovery", "mixed", "mlp_post/mean").mean(0)) and mean_of(run, "nobody") is None


def test_what_was_found_is_read_back(run: Results):
    found = discovery_of(run, "mixed")
    assert found.by_side["mlp_gate", "mean"].shape == (2, 2, 48) and found.where == "response" and found.tokens > 0
    assert found.contrast["mlp_gate"].auroc.shape == (2, 48) and found.contrast["mlp_gate"].chosen == 6
    ranking, entry = ranking_of(run, "mixed", "mean", "mlp_gate")
    assert ranking.equal(found.ranking("mean", "mlp_gate")) and len(entry["pair_hashes"]) == entry["pairs"] == 6
    ranking, entry = ranking_of(run, "mixed", "attribution", "mlp_post")
    assert ranking.equal(run.tensor("attribution", "mixed · some pairs", "gradient/effect")) and entry["pairs"] == 6
    sets, entry = sets_of(run, "mixed")
    assert {name: len(neurons) for name, neurons in sets.items()} == {
        **{f"top {name}": len(coords) for name, coords in entry["top"].items()},
        **{name: len(coords) for name, coords in entry["quadrants"].items() if coords},
    }
    exact = [row["neurons"][0] for row in run.entry("attribution", "mixed · some pairs")["exact"]]
    assert {tuple(place) for place in exact} <= set(neurons_to_show(run, "mixed", most=20))


def test_it_is_seen_in_a_terminal_and_on_a_page(run: Results):
    console = Console(width=200)
    with console.capture() as capture:
        summary(run, console)
    printed = capture.get()
    for title in ("Scores", "Neurons", "Overlap", "Ablation", "Agreement", "Ablated alone", "Tension", "Sets zeroed", "reward gap",
                  "Patched from another model", "Reward lens"):  # fmt: skip
        assert title in printed
    page = build_page(run)
    manifest = document(page, "manifest")
    assert [model["name"] for model in manifest["models"]] == ["mixed", "helpful into mixed", "helpful", "harmless"]
    assert len(manifest["panels"]) == len(document(page, "panels")) == 23
    assert len(manifest["details"]) == 2 and [each["command"].split()[1] for each in manifest["missing"]] == ["repair"]
    assert document(page, "examples-1")["words_out"][0]["raised"]


@pytest.mark.parametrize("key", ["ids", "tasks", "dropped"])
def test_a_study_entry_that_lacks_something_is_not_taken_for_one_without_edits(key: str, tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    document = json.loads(path.read_text())
    (name, *_) = [name for name, entry in document["sections"]["study"].items() if entry["edits"]]
    del document["sections"]["study"][name][key]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"study of '{name}'.*(missing|wrong)"):
        Results.load(tmp_path / "run")


@pytest.mark.parametrize("provenance", [None, {"versions": None}])
def test_a_newer_format_is_refused_in_a_line_whatever_its_provenance(provenance: object, tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99, "provenance": provenance}))
    with pytest.raises(InputError, match="run has format 99, this version reads 2"):
        Results.load(tmp_path / "run")
