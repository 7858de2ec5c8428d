"""What a page shows of a run, and what it says about it: a panel a figure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tl_reward.measures.json_types import MaybeEstimateJson
from tl_reward.results.sections import (
    AblationEntry,
    AttributionEntry,
    DiscoveryEntry,
    EffectsEntry,
    LensEntry,
    ModelPatchingEntry,
    OverlapEntry,
    PatchingEntry,
    ScoresEntry,
    SetsEntry,
    TensionEntry,
)
from tl_reward.results.store import Results
from tl_reward.show import plots
from tl_reward.show.how_made import how_made
from tl_reward.show.intervals import NOTE, any_few, bracket
from tl_reward.show.page.neuron_details import in_conflict, top_in_words
from tl_reward.show.page.panel import Panel, shows
from tl_reward.show.page.repair_panels import panels_of_repair


def panels_of(results: Results) -> Iterator[Panel]:
    have = results.sections
    yield from panels_of_repair(results, have.get("repair", {}))
    if "scores" in have:
        yield from _marked(_panel_of_scores(results, have["scores"]), have["scores"])
    yield from _panel_of_overlap(results, have.get("overlap", {}))
    if "ablation" in have:
        yield from _marked(_panel_of_ablation(results, have["ablation"]), have["ablation"])
    for name, entry in have.get("attribution", {}).items():
        yield from _marked(_panel_of_attribution(results, {name: entry}), entry)
    for name, entry in have.get("effects", {}).items():
        yield from _marked(_panel_of_effects(results, {name: entry}), entry)
    yield from _panel_of_tension(results, have.get("tension", {}))
    for name, entry in have.get("sets", {}).items():
        yield from _marked(_panel_of_sets(results, {name: entry}), entry)
    for name, entry in have.get("patching", {}).items():
        yield from _marked(_panel_of_patching(results, {name: entry}), entry)
    yield from _marked(_panel_of_model_patching(results, have.get("model_patching", {})), have.get("model_patching"))
    if "lens" in have:
        yield from _marked(_panel_of_lens(results, have["lens"]), have["lens"])
    yield from _panel_of_heads(results, have.get("discovery", {}))


def _marked(panels: Iterator[Panel], shown: Any) -> Iterator[Panel]:
    """Panels that say so where an interval is over few prompts."""
    for panel in panels:
        yield panel._replace(notes=(*panel.notes, NOTE)) if any_few(shown) else panel


@shows("scores")
def _panel_of_scores(results: Results, entries: Mapping[str, ScoresEntry]) -> Iterator[Panel]:
    counts = [len(entry["ids"]) for entry in entries.values()]
    yield Panel(
        "Does each reward model prefer the chosen response?",
        f"Share of {_from_to(counts)} pairs in which the chosen response gets the higher reward, with 95 % bootstrap intervals.",
        plots.accuracy_bars(results),
        notes=(
            "A tie counts half. Of a best-of-n row, every pair counts here; the stricter share of rows with all pairs right is in the "
            "run's scores.",
        ),
    )
    yield Panel(
        "By how much?",
        f"Margins of {_from_to(counts)} pairs: reward of the chosen response minus reward of the rejected one, in raw reward units. Right "
        "of the dotted line the model agrees with the preference.",
        plots.margin_histogram(results),
    )


def _from_to(counts: Collection[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


@shows("overlap", each=True)
def _panel_of_overlap(results: Results, entries: Mapping[str, OverlapEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        what = top_in_words(entry)
        yield Panel(
            "Where are each model's top neurons?",
            f"For each layer, how many of {what} lie in it.",
            plots.layer_profile(results, name),
            notes=(_depth(entry),),
        )
        yield Panel(
            "Do the models use the same neurons?",
            f"Jaccard index of {what}, beside two levels of chance.",
            plots.overlap_bars(results, name),
            notes=(
                "Chance: independent sets over the whole model, and independent sets within each layer with the same counts there.",
                _regions(entry),
            ),
        )


@shows("ablation")
def _panel_of_ablation(results: Results, entries: Mapping[str, AblationEntry]) -> Iterator[Panel]:
    counts = [entry["clean"]["pairs"] for entry in entries.values()]
    yield Panel(
        "What breaks when they are zeroed?",
        f"Accuracy on {_from_to(counts)} pairs after the top neurons are set to 0, with 95 % intervals, beside the grey range of random "
        f"sets.{''.join(map(_caution, entries.values()))}",
        plots.ablation_curves(results),
        notes=(
            "The neurons are set to 0 at every position. The grey band is the range of random sets of as many neurons in each layer.",
            *(f"{_tested(name, entry)}." for name, entry in entries.items()),
        ),
    )
    yield Panel(
        "And what happens to the margin?",
        "The same edits, in mean margin: reward of chosen minus rejected, in raw reward units.",
        plots.ablation_curves(results, "mean_margin"),
    )
    for name, entry in entries.items():
        if "pairs" in entry:
            yield Panel(
                f"How do single rewards move? {name}",
                f"The share of {entry['pairs']} pairs with at most so much reward or margin: with all neurons (thick), and without some.",
                plots.ablated_rewards(results, name),
                notes=("A line that moved left lost reward. At the dotted line, its height is the share of pairs that are wrong or tied.",),
            )


@shows("attribution", each=True)
def _panel_of_attribution(results: Results, entries: Mapping[str, AttributionEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        best = entry["methods"][entry["best"]]
        sample = f"{best['agreement']['neurons']} neurons, {best['agreement_drawn']['neurons']} of them drawn at random"
        yield Panel(
            f"Does attribution predict what editing a neuron does? {name}",
            f"Each point is a neuron: its effect on the mean margin of {entry['pairs']} pairs, estimated, and exact with 95 % intervals. "
            f"Positive: the edit lowers the margin. Spearman correlation {_interval(best['agreement']['spearman'])}.",
            plots.attribution_scatter(results, name),
            480,
            (
                f"Estimated as {best['about']} at {entry['site']}; exact by editing the neuron alone (kind: {entry['kind']}), with "
                f"intervals over prompts. {how_made(entry)}".rstrip(),
                f"Spearman correlation {_interval(best['agreement']['spearman'])} over all {sample}; "
                f"{_interval(best['agreement_drawn']['spearman'])} over these alone.",
            ),
        )
        about = "; ".join(f"{method}: {each['about']}" for method, each in entry["methods"].items())
        yield Panel(
            f"Which method can be trusted? {name}",
            f"Agreement of estimated effects with exact ones, for {best['agreement']['neurons']} neurons, with 95 % intervals over these.",
            plots.agreement_bars(results, name),
            notes=(
                f"Of {sample}. Precision at k: of the k largest estimates, the share among the k largest exact effects (k is a quarter of "
                "the neurons compared).",
                f"{about}.",
            ),
        )


@shows("effects", each=True)
def _panel_of_effects(results: Results, entries: Mapping[str, EffectsEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        yield Panel(
            f"What does each neuron do? {name}",
            f"Exact effect of ablating each alone (kind: {entry['kind']}) on the mean margin of {entry['pairs']} pairs, with 95 % "
            "intervals over prompts. Right of the dotted line, ablating it lowers the margin.",
            plots.effect_intervals(results, name),
            max(320, 120 + 22 * min(30, len(entry["effects"]))),
            (how_made(entry),),
        )


@shows("tension", each=True)
def _panel_of_tension(results: Results, entries: Mapping[str, TensionEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        if entry["site"] == "attn_z":  # neurons have a plot that answers to clicks
            yield Panel(
                f"Which heads serve one objective at the other's cost? {name}",
                f"Each head's effect on both margins ({entry['method']} at {entry['site']}). Coloured: clear on both, at a false discovery "
                "rate of 5 % each.",
                plots.tension_scatter(results, name),
                520,
                (in_conflict(entry),),
            )


@shows("sets", each=True)
def _panel_of_sets(results: Results, entries: Mapping[str, SetsEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        yield Panel(
            f"What breaks when each set is zeroed? {name}",
            f"Accuracy on {entry['clean']['pairs']} pairs, with 95 % intervals; crosses are random sets of as many neurons in each layer."
            f"{_caution(entry)}",
            plots.set_bars(results, name),
            480,
            (f"Sets: {_origin(entry)}. {how_made(entry)}".rstrip(),),
        )


@shows("patching", each=True)
def _panel_of_patching(results: Results, entries: Mapping[str, PatchingEntry]) -> Iterator[Panel]:
    for name, entry in entries.items():
        cells = entry["cells"]
        if any(cell["unit"] is None and isinstance(cell["where"], str) and cell["layer"] is not None for cell in cells):
            yield Panel(
                f"What suffices to move the reward? {name}",
                f"Share of the gap between the rewards of each of {entry['pairs']} pairs that moves when one transcript's run is patched "
                "from the other's, layer by layer, with 95 % intervals: 1 is all of it.",
                plots.patch_profile(results, name),
                460,
                (
                    "Intervals are over prompts. Noising: the chosen run patched from the rejected one; denoising: the other way round.",
                    _aligned(entry),
                    _patch_agreement(entry),
                ),
            )
        for where in dict.fromkeys(cell["where"] for cell in cells if cell["unit"] is not None):
            yield Panel(
                f"Which heads? {name}, {where} tokens",
                "Share of the reward gap that each attention head moves by itself; blue moves the reward towards the other transcript's.",
                plots.patch_heads(results, name, where),
                480,
            )
        if "tokens" in entry:
            yield Panel(
                f"Which tokens? {name}",
                "One pair, one token and layer at a time. Tokens stand for each other from the read-out token back; on the axis the chosen "
                "one's, and below it the rejected one's.",
                plots.patch_tokens(results, name),
                560,
            )


@shows("model_patching")
def _panel_of_model_patching(results: Results, entries: Mapping[str, ModelPatchingEntry]) -> Iterator[Panel]:
    for model, source in dict.fromkeys((entry["model"], entry["source_model"]) for entry in entries.values()):
        yield Panel(
            f"What does {source} restore in {model}, and what does it cost?",
            f"Pair accuracy of {model} with the top neurons' activations set to what they are in {source} on the same tokens, with 95 % "
            "intervals. The dashed line is the source itself.",
            plots.patched_accuracy(results, model, source),
            440,
            ("Intervals are over prompts. Bands: layer-matched random sets.",),
            entries=tuple(name for name, entry in entries.items() if (entry["model"], entry["source_model"]) == (model, source)),
        )
    for name, entry in entries.items():
        yield Panel(
            f"Which pairs does it give back, and which does it take? {name}",
            f"Recovered: of the {entry['lost']} pairs that {entry['source_model']} has right and {entry['model']} by itself wrong. "
            f"Kept: of those that {entry['model']} has right.{_caution(entry)}",
            plots.model_patching_curves(results, name),
            440,
            (
                f"{entry['site']} of the top neurons, by {entry['ranking']} on {entry['found_on']} ({_apart(entry)}), set to what they are "
                f"in {entry['source_model']} on the same tokens (where: {entry['where']}).",
                "Bands: layer-matched random sets.",
            ),
            entries=(name,),
        )


@shows("lens")
def _panel_of_lens(results: Results, entries: Mapping[str, LensEntry]) -> Iterator[Panel]:
    yield Panel(
        "At which layer is a preference decided?",
        "The reward head, read from the residual stream after each layer. Left: pair accuracy. Right: share of pairs whose preference no "
        "longer changes. 95 % intervals.",
        plots.lens_curves(results),
        440,
        ("Depth 0 is before the first layer. Right: no change from that depth on. Intervals are over prompts.",),
    )
    for name, entry in entries.items():
        for shown in entry["shown"]:
            yield Panel(
                f"After which token? {name}, pair {shown['id']}",
                "The reward read at every token, where the two transcripts part. The model was trained to be read at the last one alone; "
                "the dotted line is where the preference takes its final sign.",
                plots.token_curves(results, name, shown["id"]),
                480,
            )


def _panel_of_heads(results: Results, entries: Mapping[str, DiscoveryEntry]) -> Iterator[Panel]:
    for model, entry in entries.items():
        if "attn_z/norm" in entry["computed"]:
            yield Panel(
                f"Every attention head of the {model} model",
                f"Mean norm of attn_z over all tokens of {entry['pairs']} pairs of {entry['dataset']}. Each row is a layer, its "
                "heads sorted; hover to read a head's number.",
                plots.neuron_map(results, model, "norm", "attn_z"),
            )


def _aligned(entry: PatchingEntry) -> str:
    aligned = entry["aligned"]
    alone = sum(aligned["chosen_alone"]) + sum(aligned["rejected_alone"])
    return (
        f"Aligned from the read-out token back: {sum(aligned['aligned']):,} tokens on each side; {alone:,} tokens of the longer responses "
        "have no counterpart and stay as they are."
    )


def _patch_agreement(entry: PatchingEntry) -> str:
    if entry["agreement"] is None:
        return ""
    return f"Attribution patching ranks these patches with a Spearman correlation of {_interval(entry['agreement']['spearman'])}."


def _interval(value: MaybeEstimateJson) -> str:
    if value["value"] is None:
        return "undefined (all effects are the same)"
    return f"{value['value']:.2f} {bracket(value)}"


def _depth(entry: OverlapEntry) -> str:
    parts = (f"{model} {' / '.join(f'{share:.2f}' for share in thirds)}" for model, thirds in entry["depth"].items())
    return f"Share in the early / middle / late third of the layers: {', '.join(parts)}."


def _regions(entry: OverlapEntry) -> str:
    regions = ", ".join(f"{count:,} {region}" for region, count in entry.get("regions", {}).items())
    return f"Neurons: {regions}." if regions else ""


def _tested(name: str, entry: AblationEntry) -> str:
    made = f". {how_made(entry)}".rstrip(". ") if "precision" in entry else ""
    return f"{name}: highest {entry['score']} at {entry['site']}, found on {entry['found_on']} ({_apart(entry)}){made}"


def _caution(entry: AblationEntry | SetsEntry | ModelPatchingEntry) -> str:
    """What no reader may miss, for the end of a caption: neurons that were found on pairs that now test them."""
    both = entry["tested_pairs_that_found"]
    return f" CAUTION: {both} of {entry['clean']['pairs']} tested pairs found these neurons." if both else ""


def _origin(entry: SetsEntry) -> str:
    """Where sets come from."""
    found = "" if entry["tested_pairs_that_found"] is None else "found on "
    return f"{found}{entry['found_on']} ({_apart(entry)})"


def _apart(entry: AblationEntry | SetsEntry | ModelPatchingEntry) -> str:
    """Whether neurons were found on pairs that now test them."""
    both = entry["tested_pairs_that_found"]
    if both is None:
        return "on which pairs they were found is not recorded"
    return f"{'none' if both == 0 else f'CAUTION: {both}'} of {entry['clean']['pairs']} tested pairs among them"
