"""Figures of a run: what they draw is what was recorded."""

import numpy as np
import pytest
import torch
from helpers.figures import traces_of
from helpers.page_runs import random_run, tiny_run
from helpers.partial_runs import put

from tl_reward import plots
from tl_reward.analyses.discovery import Discovery
from tl_reward.errors import InputError
from tl_reward.measures.names import StatisticName
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_neurons import record_discovery, record_overlap
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import columns_of, exact_effects
from tl_reward.show.page.panels import panels_of
from tl_reward.sites import UnitSite


@pytest.fixture(scope="module")
def results():
    return tiny_run()


def test_accuracy_bars_show_the_recorded_accuracies(results):
    figure = plots.accuracy_bars(results)
    assert [bar.name for bar in traces_of(figure)] == ["helpful", "harmless", "mixed"]
    for bar in traces_of(figure):
        assert bar.y[0] == results.section("scores")[f"{bar.name} · some pairs"]["accuracy"]["value"]


def test_margin_histograms_hold_every_pair(results):
    for line in traces_of(plots.margin_histogram(results)):
        assert sum(line.y) == pytest.approx(1)


def test_the_map_names_each_neuron_and_rows_fall(results):
    heat = traces_of(plots.neuron_map(results, "mixed", "mean", "mlp_gate"))[0]
    value = results.tensor("discovery", "mixed", "mlp_gate/mean").mean(0).numpy()
    assert heat.z.shape == (2, 48)
    assert np.allclose(np.take_along_axis(value, np.asarray(heat.customdata), axis=1), heat.z, rtol=1e-2, atol=1e-4)
    assert (np.diff(heat.z, axis=1) <= 0).all()


def test_ablation_curves_start_at_the_clean_model_and_band_only_where_drawn(results):
    band, line = traces_of(plots.ablation_curves(results))
    entry = results.section("ablation")["mixed · some pairs"]
    assert line.y[0] == entry["clean"]["accuracy"]["value"] and list(line.x) == [0, 10, 100]
    assert max(band.x) == 10  # no disjoint random set where every neuron is zeroed
    assert band.line.width > 0  # of one draw, the range is a line
    assert traces_of(plots.ablation_curves(results, "mean_margin"))[1].y[0] == entry["clean"]["mean_margin"]["value"]


def test_layer_profile_and_overlap(results):
    entry = next(iter(results.section("overlap").values()))
    for line in traces_of(plots.layer_profile(results)):
        assert sum(line.y) == len(entry["top"][line.name]) == 10
    observed = traces_of(plots.overlap_bars(results))[0]
    assert list(observed.y) == [pair["jaccard"] for pair in entry["pairs"]]


def test_attribution_scatter_shows_each_zeroed_neuron_once(results):
    (name,) = results.section("attribution")
    entry = results.entry("attribution", name)
    largest, drawn, line = traces_of(plots.attribution_scatter(results, name))
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
    traces = {trace.name: trace for trace in traces_of(plots.effect_intervals(results, "mixed · some pairs, zero"))}
    assert set(traces) == {"all pairs", "helpful", "harmless"}
    for row in entry["effects"]:
        at = list(traces["all pairs"].y).index(row["name"])
        assert traces["all pairs"].x[at] == row["margin"]["value"]
        assert traces["harmless"].x[at] == row["by_objective"]["harmless"]["value"]


def test_the_tension_plot_places_neurons_by_their_effects(results):
    figure = plots.tension_scatter(results, "mixed · some pairs")
    effect = {name: results.tensor("tension", "mixed · some pairs", f"{name}/effect") for name in ("harmless", "helpful")}
    assert sum(len(trace.x) for trace in traces_of(figure)) == 2 * 48
    for trace in traces_of(figure):
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True):
            ((layer, neuron),) = NeuronSet.parse([text.removeprefix("neuron ")])
            assert (x, y) == (effect["harmless"][layer, neuron].item(), effect["helpful"][layer, neuron].item())


def test_set_bars_show_each_set_beside_its_random_ones(results):
    (entry,) = results.section("sets").values()
    traces = {trace.name: trace for trace in traces_of(plots.set_bars(results, "mixed · some pairs"))}
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


def test_top_neurons_leave_out_models_of_another_shape(results):
    both = Results.merge([results])
    put(both, "discovery", "other", {"shape": [1, 3], "computed": ["mlp_gate/mean"]})
    assert set(plots.top_neurons(both, score="mean", site="mlp_gate")[0]) == {"layer", "neuron", "helpful", "harmless", "mixed"}


def test_overlap_of_one_model_or_of_two_shapes_is_refused(results):
    with pytest.raises(InputError, match="two or more rankings of one shape"):
        record_overlap(Results(), results, scores=["mean"], sites=["mlp_gate"], fraction=0.1, models=["mixed"])
    other = Results()
    for name, (layers, neurons) in (("a", (4, 50)), ("b", (3, 20))):
        by_side: dict[tuple[UnitSite, StatisticName], torch.Tensor] = {("mlp_gate", "mean"): torch.randn(2, layers, neurons)}
        record_discovery(other, name, "some pairs", Discovery(by_side=by_side, pairs=(), tokens=1))
    with pytest.raises(InputError, match=r"\[4, 50\].*\[3, 20\]"):
        record_overlap(Results(), other, scores=["mean"], sites=["mlp_gate"], fraction=0.1)


def test_the_map_of_a_quantity_and_its_sums_over_layers(results):
    column = columns_of(results)[0]
    heat = traces_of(plots.quantity_map(results, "mixed"))[0]
    assert column.model == "mixed" and np.array_equal(heat.z, column.values) and heat.zmin == -heat.zmax < 0
    lines = {line.name: line for line in traces_of(plots.layer_sums(results, "AUROC of mlp_gate"))}
    assert set(lines) == {"helpful", "harmless", "mixed"}
    auroc = results.tensor("discovery", "harmless", "mlp_gate/contrast/auroc")
    np.testing.assert_allclose(lines["harmless"].y, (auroc - 0.5).sum(1), atol=1e-5)
    middle = traces_of(plots.quantity_map(results, "harmless", "AUROC of mlp_gate"))[0]
    assert middle.zmin + middle.zmax == pytest.approx(1)
    with pytest.raises(InputError, match="no 'nothing' of 'mixed'; it has effect on harmless margin"):
        plots.quantity_map(results, "mixed", "nothing")
    with pytest.raises(InputError, match="models: mixed"):
        plots.quantity_map(results, "nobody")
    with pytest.raises(InputError, match="single neurons"):
        plots.quantity_map(Results(), "mixed")


def test_regions_hold_every_top_neuron_once(results):
    (entry,) = results.section("overlap").values()
    observed, expected = traces_of(plots.region_bars(results))
    sets = {name: NeuronSet.from_json(coords) for name, coords in entry["top"].items()}
    assert sum(observed.y) == len(sets["helpful"] | sets["harmless"] | sets["mixed"])
    counts = dict(zip(observed.x, observed.y, strict=True))
    assert counts.get("helpful and harmless and mixed", 0) == len(sets["helpful"] & sets["harmless"] & sets["mixed"])
    assert counts.get("mixed only", 0) == len(sets["mixed"] - sets["helpful"] - sets["harmless"])
    assert sum(expected.y) == pytest.approx(sum(observed.y), rel=0.5)


def test_a_neurons_effects_and_activations(results):
    exact = exact_effects(results)[0]
    layer, neuron = exact["neuron"]
    traces = {trace.name: trace for trace in traces_of(plots.neuron_effects(results, (layer, neuron)))}
    assert exact["margins"]["all"]["value"] in traces["mixed, exact"].x
    estimated = [c.values[layer, neuron] for c in columns_of(results) if c.unit == "reward units"]
    np.testing.assert_allclose(traces["mixed, estimated"].x, estimated)
    with pytest.raises(InputError, match=r"no effects of neuron 5\.0"):
        plots.neuron_effects(results, (5, 0))
    shown = random_run(2, 20, shown=3)
    lines = traces_of(plots.activation_histogram(shown, "mixed", (0, 1)))
    counts = shown.tensor("examples", "mixed · random numbers", "histogram/count")[1]
    assert [line.name for line in lines] == ["chosen · helpful", "rejected · helpful"]
    np.testing.assert_allclose(lines[1].y, counts[1] / counts[1].sum())
    with pytest.raises(InputError, match=r"no examples of neuron 1\.1"):
        plots.activation_histogram(shown, "mixed", (1, 1))


def test_rewards_before_and_after_an_edit_are_those_of_every_pair(results):
    ((name, entry),) = results.section("ablation").items()
    lines = traces_of(plots.ablated_rewards(results))
    edits = 1 + len(entry["points"])
    assert [line.name for line in lines] == 3 * ["no edit", "top 10 % zeroed", "top 100 % zeroed"] and len(lines) == 3 * edits
    chosen, rejected = (results.tensor("ablation", name, side).double().numpy() for side in ("chosen", "rejected"))
    for values, line in zip([*chosen, *rejected, *(chosen - rejected)], lines, strict=True):
        np.testing.assert_allclose(line.x, np.sort(values))
        np.testing.assert_allclose(line.y, [(values <= at + 1e-12).mean() for at in line.x])
    wrong = [sum(y <= 0 for y in line.x) / len(line.x) for line in lines[2 * edits :]]
    accuracies = [entry["clean"]["accuracy"]["value"], *(point["ranked"]["accuracy"]["value"] for point in entry["points"])]
    ties = [float((row == 0).mean()) for row in chosen - rejected]
    np.testing.assert_allclose(wrong, [1 - accuracy + tie / 2 for accuracy, tie in zip(accuracies, ties, strict=True)])


def test_an_earlier_ablation_keeps_no_rewards(results):
    (entry,) = results.section("ablation").values()
    earlier = Results()
    put(earlier, "ablation", "earlier", {key: value for key, value in entry.items() if key != "pairs"})
    with pytest.raises(InputError, match="keeps no rewards of single pairs: it was made by an earlier version"):
        plots.ablated_rewards(earlier)
    assert [panel.title for panel in panels_of(earlier)] == ["What breaks when they are zeroed?", "And what happens to the margin?"]


def test_every_figure_is_public_and_exported():
    assert sorted(plots.__all__) == plots.__all__ and all(callable(getattr(plots, name)) for name in plots.__all__)


def test_an_attribution_that_checked_the_effects_of_a_tension_is_no_second_column():
    run = random_run(2, 20)
    checked = {
        "model": "mixed", "dataset": "random numbers", "site": "mlp_post", "kind": "zero", "pairs": 10, "exact": [], "pair_hashes": [],
        "methods": {"gradient": {"about": "activation x gradient"}, "other": {"about": "something else"}},
    }  # fmt: skip
    effect = run.tensor("tension", "mixed · random numbers", "helpful/effect")
    tensors = {"gradient/effect": effect, "gradient/error": effect.abs(), "other/effect": -effect, "other/error": effect.abs()}
    put(run, "attribution", "mixed · random numbers", checked, tensors)
    keys = [column.key for column in columns_of(run)]
    assert keys[:3] == ["effect on harmless margin", "effect on helpful margin", "effect on margin, other"] and len(keys) == 5
