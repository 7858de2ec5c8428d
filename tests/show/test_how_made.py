"""What a table and a page say of how figures of edited models were made."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from tl_reward.analyses.ablation_curves import ablation_curve
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.data.readers import load_pairs
from tl_reward.measures.agreement import Precision
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_edits import record_ablation, record_effects
from tl_reward.results.record_models import record_model
from tl_reward.results.sections import FoundOn, made
from tl_reward.results.store import Results
from tl_reward.running import half_precision
from tl_reward.running.half_precision import half_where_it_agrees
from tl_reward.show.how_made import how_made
from tl_reward.show.notes import notes_of
from tl_reward.show.page.panels import panels_of
from tl_reward.show.run_tables import summary

ASKED = Precision("float32", "float32", asked=True)
DIFFER = replace(ASKED, margins=24, error=0.0412, largest=0.1234, correlation=0.9981)
IN_WORDS = (
    "24 margins in both precisions differ by at most 0.12 reward units (0.041 standard deviations, root mean square; "
    "rank correlation 0.998)"
)


@pytest.mark.parametrize(
    ("precision", "said"),
    [
        (None, ""),
        (Precision("float32", "float32"), "Computed in float32."),
        (ASKED, "Computed in float32: half precision is no faster here."),
        (DIFFER, f"Computed in float32, since half precision does not agree: {IN_WORDS}."),
        (replace(DIFFER, dtype="bfloat16"), f"Computed in float32, its matrix products in bfloat16: {IN_WORDS}."),
        (Precision("bfloat16", "float32"), "Computed in float32, its matrix products in bfloat16."),
        (
            replace(DIFFER, dtype="bfloat16", figures={"effects": 0.9876}),
            f"Computed in float32, its matrix products in bfloat16: {IN_WORDS}; effects: rank correlation 0.988.",
        ),
    ],
)
def test_in_words(precision, said):
    assert how_made(made(precision)) == said


def test_tables_and_page_say_it(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 2.0)
    pairs, results = load_pairs("embedded", split="test", limit=6), Results()
    ranking = torch.rand(2, 48, generator=torch.Generator().manual_seed(0))
    half, precision = half_where_it_agrees(tiny, pairs)
    curve = ablation_curve(half, pairs, ranking, fractions=(0.1,), draws=1)
    assert curve.precision == Precision("bfloat16", "float32")
    curve = replace(curve, precision=precision)
    record_model(results, "mixed", tiny, precision=precision)
    found: FoundOn = {"dataset": "others", "pair_hashes": []}
    record_ablation(results, "mixed", "pairs", curve, score="mean", site="mlp_gate", found=found, pairs=pairs)
    record_effects(results, "mixed", "pairs", neuron_effects(tiny, pairs, NeuronSet([(0, 3)])))
    results.save(tmp_path / "run")
    read = Results.load(tmp_path / "run")
    assert read.section("ablation")["mixed · pairs"].get("precision", {}).get("margins") == len(pairs)
    console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
    summary(read, console)
    told = " ".join(note for panel in panels_of(read) for note in panel.notes)
    for text in (console.export_text(), told):
        assert "its matrix products in bfloat16: 6 margins in both precisions differ by at most" in text
        assert "Computed in float32." in text
    (note,) = notes_of(read)
    assert note.startswith("mixed: Computed in float32, its matrix products in bfloat16: 6 margins")
