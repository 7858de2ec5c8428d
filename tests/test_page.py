"""Figures and the page, from runs of tiny models: what they draw, and that hostile names stay text."""

import json
import re
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from tl_reward import effect_plots, plots
from tl_reward.ablation import ablate_sets, ablation_curve
from tl_reward.attribution import attribute
from tl_reward.dashboard import build_page, write_page
from tl_reward.dashboard.page import _json_block
from tl_reward.discovery import Discovery, discover
from tl_reward.effects import compare_with_exact, neuron_effects
from tl_reward.errors import InputError
from tl_reward.readers import load_pairs
from tl_reward.record import (
    record_ablation,
    record_attribution,
    record_discovery,
    record_effects,
    record_overlap,
    record_scores,
    record_sets,
    record_tension,
    sets_of,
)
from tl_reward.results import Results, provenance
from tl_reward.run import score
from tl_reward.sites import NeuronSet
from tl_reward.tension import tension
from tl_reward.tiny import tiny_reward_model

PAIRS = load_pairs("embedded", split="test", limit=6)
HOSTILE = "</script><script>document.title='run'</script><!--<script>\u2028 %%PLOTLY%%"


@pytest.fixture(scope="module")
def results():
    results = Results(provenance=provenance(seed=0, data={"pairs": PAIRS}))
    for seed, name in enumerate(("helpful", "harmless", "mixed")):
        model = tiny_reward_model(seed=seed)
        record_scores(results, name, "some pairs", score(model, PAIRS))
        found = discover(model, PAIRS)
        record_discovery(results, name, "some pairs", found)
    curve = ablation_curve(model, PAIRS, found.ranking("mean"), fractions=(0.1, 1.0), draws=2)
    entry = results.sections["discovery"]["mixed"]
    record_ablation(results, "mixed", "some pairs", curve, score="mean", site="mlp_gate", found=entry, pairs=PAIRS[:2])
    record_overlap(results, results, scores=["mean"], sites=["mlp_gate"], fraction=0.1)
    estimate = attribute(model, PAIRS)
    comparison = compare_with_exact(model, PAIRS, {"gradient": estimate.effect}, top=5, random=6)
    record_attribution(results, "mixed", "some pairs", {"gradient": estimate}, comparison)
    both = [pair for objective in ("helpful", "harmless") for pair in load_pairs("embedded", split="test", objective=objective, limit=4)]
    effects = neuron_effects(model, both, NeuronSet([(0, 3), (1, 7), (1, 30)]))
    record_effects(results, "mixed", "some pairs", effects)
    record_tension(results, "mixed", "some pairs", tension(model, both), fraction=0.1)
    sets, source = sets_of(results, "mixed")
    record_sets(results, "mixed", "some pairs", ablate_sets(model, both, sets, draws=2), site="mlp_post", source=source, pairs=both)
    return results


def test_accuracy_bars_show_the_recorded_accuracies(results):
    figure = plots.accuracy_bars(results)
    assert [bar.name for bar in figure.data] == ["helpful", "harmless", "mixed"]
    for bar in figure.data:
        assert bar.y[0] == results.sections["scores"][f"{bar.name} · some pairs"]["accuracy"]["value"]


def test_margin_histograms_hold_every_pair(results):
    for line in plots.margin_histogram(results).data:
        assert sum(line.y) == pytest.approx(1)


def test_the_map_names_each_neuron_and_rows_fall(results):
    heat = plots.neuron_map(results, "mixed", "mean", "mlp_gate").data[0]
    value = results.tensor("discovery", "mixed", "mlp_gate/mean").mean(0).numpy()
    assert heat.z.shape == (2, 48)
    assert np.allclose(np.take_along_axis(value, np.asarray(heat.customdata), axis=1), heat.z, rtol=1e-2, atol=1e-4)
    assert (np.diff(heat.z, axis=1) <= 0).all()


def test_ablation_curves_start_at_the_clean_model_and_band_only_where_drawn(results):
    band, line = plots.ablation_curves(results).data
    entry = results.sections["ablation"]["mixed · some pairs"]
    assert line.y[0] == entry["clean"]["accuracy"]["value"] and list(line.x) == [0, 10, 100]
    assert max(band.x) == 10  # no disjoint random set where every neuron is zeroed
    assert plots.ablation_curves(results, "mean_margin").data[1].y[0] == entry["clean"]["mean_margin"]["value"]


def test_layer_profile_and_overlap(results):
    entry = next(iter(results.sections["overlap"].values()))
    for line in plots.layer_profile(results).data:
        assert sum(line.y) == len(entry["top"][line.name]) == 10
    observed = plots.overlap_bars(results).data[0]
    assert list(observed.y) == [pair["jaccard"] for pair in entry["pairs"]]


def test_attribution_scatter_shows_each_zeroed_neuron_once(results):
    (name,) = results.section("attribution")
    entry = results.entry("attribution", name)
    largest, drawn, line = effect_plots.attribution_scatter(results, name).data
    assert (len(largest.x) + len(drawn.x), len(drawn.x), line.name) == (len(entry["exact"]), 6, "equal")
    effect = results.tensor("attribution", name, "gradient/effect")
    for row in entry["exact"]:
        trace = drawn if row["drawn"] else largest
        at = trace.text.index(f"neuron {row['name']}")
        ((layer, neuron),) = row["neurons"]
        assert trace.x[at] == pytest.approx(effect[layer, neuron].item())
        assert trace.y[at] == pytest.approx(row["margin"]["value"])


def test_effect_intervals_show_each_neuron_for_all_pairs_and_each_objective(results):
    (entry,) = results.section("effects").values()
    traces = {trace.name: trace for trace in effect_plots.effect_intervals(results, "mixed · some pairs, zero").data}
    assert set(traces) == {"all pairs", "helpful", "harmless"}
    for row in entry["effects"]:
        at = list(traces["all pairs"].y).index(row["name"])
        assert traces["all pairs"].x[at] == row["margin"]["value"]
        assert traces["harmless"].x[at] == row["by_objective"]["harmless"]["value"]


def test_the_tension_plot_places_neurons_by_their_effects(results):
    figure = effect_plots.tension_scatter(results, "mixed · some pairs")
    effect = {name: results.tensor("tension", "mixed · some pairs", f"{name}/effect") for name in ("harmless", "helpful")}
    assert sum(len(trace.x) for trace in figure.data) == 2 * 48
    for trace in figure.data:
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True):
            ((layer, neuron),) = NeuronSet.parse([text.removeprefix("neuron ")])
            assert (x, y) == (effect["harmless"][layer, neuron].item(), effect["helpful"][layer, neuron].item())


def test_set_bars_show_each_set_beside_its_random_ones(results):
    (entry,) = results.section("sets").values()
    traces = {trace.name: trace for trace in effect_plots.set_bars(results, "mixed · some pairs").data}
    for objective in ("helpful", "harmless"):
        clean, *zeroed = traces[objective].y
        assert clean == entry["clean"]["objectives"][objective]["accuracy"]["value"]
        assert zeroed == [p["ranked"]["objectives"][objective]["accuracy"]["value"] for p in entry["sets"].values()]
        assert len(traces[f"{objective}, random sets"].y) == 2 * len(entry["sets"])


def test_top_neurons_are_the_best_ranked(results):
    rows = plots.top_neurons(results, k=5, score="mean", site="mlp_gate")
    assert len(rows) == 5
    assert min(rows[0][m]["rank"] for m in ("helpful", "harmless", "mixed")) == 1
    value = results.tensor("discovery", "mixed", "mlp_gate/mean").mean(0)
    assert rows[0]["mixed"]["score"] == pytest.approx(value[rows[0]["layer"], rows[0]["neuron"]].item())


def test_figures_are_returned_and_a_missing_section_says_so():
    for name in ("accuracy_bars", "margin_histogram", "layer_profile", "overlap_bars", "ablation_curves"):
        with pytest.raises(InputError, match="this run has no"):
            getattr(plots, name)(Results())
    with pytest.raises(InputError, match="quantity"):
        plots.ablation_curves(Results(), "loss")


def _figures(page: str) -> list[dict]:
    block = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert block is not None
    return json.loads(block.group(1))


def test_the_page_holds_every_figure_and_asks_for_nothing(results):
    page = build_page(results)
    assert len(_figures(page)) == 14 == page.count('class="plot"')
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page)
    assert "default-src 'none'" in page and "showSendToCloud: false" in page
    assert all(isinstance(go.Figure(figure), go.Figure) for figure in _figures(page))


def test_a_test_on_the_pairs_that_found_the_neurons_is_pointed_out(results):
    assert "CAUTION: 2 of 6 tested pairs" in build_page(results)


def test_top_neurons_leave_out_models_of_another_shape(results):
    both = Results(dict(results.sections), dict(results.tensors))
    both.sections["discovery"] = results.sections["discovery"] | {"other": {"shape": [1, 3], "computed": ["mlp_gate/mean"]}}
    assert set(plots.top_neurons(both, score="mean", site="mlp_gate")[0]) == {"layer", "neuron", "helpful", "harmless", "mixed"}


def test_overlap_of_one_model_or_of_two_shapes_is_refused(results):
    with pytest.raises(InputError, match="two or more rankings of one shape"):
        record_overlap(Results(), results, scores=["mean"], sites=["mlp_gate"], fraction=0.1, models=["mixed"])
    other = Results()
    for name, (layers, neurons) in (("a", (4, 50)), ("b", (3, 20))):
        by_side = {("mlp_gate", "mean"): torch.randn(2, layers, neurons)}
        record_discovery(other, name, "some pairs", Discovery(by_side=by_side, pairs=(), tokens=1))
    with pytest.raises(InputError, match=r"\[4, 50\].*\[3, 20\]"):
        record_overlap(Results(), other, scores=["mean"], sites=["mlp_gate"], fraction=0.1)


def test_hostile_names_stay_text(results):
    renamed = Results(provenance={"command": HOSTILE})
    for section in ("scores", "discovery"):
        for name, entry in results.sections[section].items():
            tensors = {k.split("/", 2)[2]: v for k, v in results.tensors.items() if k.startswith(f"{section}/{name}/")}
            evil = entry | {"model": HOSTILE, "dataset": "some pairs"}
            renamed.add(section, f"{HOSTILE} · some pairs" if section == "scores" else HOSTILE, evil, tensors)
            break
    page = build_page(renamed, title=HOSTILE)
    plain = build_page(Results({"scores": results.sections["scores"]}, results.tensors))
    assert page.count("<script>") == plain.count("<script>")  # plotly.js has some in its own strings
    assert "<!--<script>" not in page.replace("".join(re.findall(r"<script>/\*\*.*?</script>", page, re.DOTALL)), "")
    assert _figures(page)[0]["data"][0]["name"] == HOSTILE


def test_json_blocks_escape_what_ends_or_breaks_a_script():
    text = _json_block({"a": "</script><!-- & \u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028\u2029"}


def test_write_page_is_atomic_and_does_not_overwrite(results, tmp_path):
    path = write_page(results, tmp_path / "page.html")
    with pytest.raises(InputError, match="exists"):
        write_page(results, path)
    with pytest.raises(InputError, match="nothing to show"):
        write_page(Results(), tmp_path / "empty.html")
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_a_page_is_built_without_the_model_code(results, tmp_path):
    results.save(tmp_path / "run")
    code = f"""
import sys
from tl_reward.results import Results
from tl_reward.dashboard import write_page
write_page(Results.load({str(tmp_path / "run")!r}), {str(tmp_path / "page.html")!r})
assert not {{"transformer_lens", "transformers", "tl_reward.model"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
