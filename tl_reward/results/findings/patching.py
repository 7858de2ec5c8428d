"""What a run's patches say: within a pair, between models; and the reward read from every layer."""

from statistics import median_low
from typing import NamedTuple

from tl_reward.measures.json_types import ModelPatchingPointJson, PatchedCellJson
from tl_reward.results.findings.clear import beyond, side_of
from tl_reward.results.findings.edits import SHARE
from tl_reward.results.findings.finding import Finding, link
from tl_reward.results.findings.words import (
    clipped,
    counted,
    found_by_tested,
    listed,
    number_of,
    others,
    pairs_of,
    share_of_all,
    span,
    starred,
    units,
    with_interval,
)
from tl_reward.results.sections import LensEntry, ModelPatchingEntry, PatchingEntry, Sections


def restored(sections: Sections) -> Finding | None:
    """What the top neurons of one model give back in another, beyond random sets: at one share of each run of patches."""
    found = [(name, entry, point) for name, entry in sections.get("model_patching", {}).items() if (point := _at_share(entry)) is not None]
    clear = [one for one in found if side_of(one[2]["recovered"], 0, len(found)) > 0 and beyond(one[2]["recovered"], _drawn(one[2]), 1)]
    if not clear:
        return None
    said = [_restored(entry, point) for _, entry, point in clear]
    return Finding(
        f"{' '.join(said)}{found_by_tested(entry for _, entry, _ in clear)}{others(len(found), len(clear))}",
        "Said where the interval of the share given back is above 0, and its 95 % interval above every layer-matched random set. Of each "
        f"run of patches the share of neurons nearest to {share_of_all(SHARE)} that has random sets. {counted(len(found), len(clear))}"
        f"{starred(' '.join(said))}",
        (link("patches", "model_patching", clear[0][0]),),
    )


def _at_share(entry: ModelPatchingEntry) -> ModelPatchingPointJson | None:
    points = [point for point in entry["points"] if _drawn(point)]
    return min(points, key=lambda point: abs(point["fraction"] - SHARE), default=None)


def _drawn(point: ModelPatchingPointJson) -> list[float]:
    return [value for value in point["random_recovered"] if value is not None]


def _restored(entry: ModelPatchingEntry, point: ModelPatchingPointJson) -> str:
    model, source, drawn = clipped(entry["model"]), clipped(entry["source_model"]), _drawn(point)
    top = f"top {share_of_all(point['fraction'])} of {units(entry['site'])} ({point['neurons']:,}, by {clipped(entry['ranking'])})"
    recovered = point["recovered"]
    lost = f"the {entry['lost']:,} of {entry['clean']['pairs']:,} {pairs_of(None, entry['dataset'])} that {source} alone has right"
    kept = point["kept"]
    keeps = (
        f" Of those that {model} has right, it keeps {with_interval(kept)} ({number_of(kept['n'], 'prompt')})."
        if kept["value"] is not None
        else ""
    )
    return (
        f"Setting the {model} model's {top} to their values in the {source} model gives back {with_interval(recovered)} of {lost} "
        f"({number_of(recovered['n'], 'prompt')}; "
        f"{number_of(len(drawn), 'random set')} of the same layers: {span(min(drawn), max(drawn))}).{keeps}"
    )


class _Taken(NamedTuple):
    name: str
    entry: PatchingEntry
    cell: PatchedCellJson
    looked_at: int


def read_out_holds(sections: Sections) -> Finding | None:
    """From which layer on the read-out token's residual stream moves more than half of the reward gap, whichever way it is patched."""
    runs = {
        name: sorted((cell for cell in entry["cells"] if cell["kind"] == "resid_post" and cell["where"] == "readout"), key=_layer)
        for name, entry in sections.get("patching", {}).items()
    }
    runs = {name: cells for name, cells in runs.items() if len(cells) > 1}
    found = []
    for name, cells in runs.items():
        among = 2 * sum(map(len, runs.values()))
        held = [all(side_of(cell[way], 0.5, among) > 0 for way in ("noising", "denoising")) for cell in cells]
        first = next((i for i in range(len(cells)) if all(held[i:])), None)
        if first is not None and first < len(cells) - 1:  # the last layer's holds all of it, whatever the model
            found.append(_Taken(name, sections.get("patching", {})[name], cells[first], among))
    if not found:
        return None
    said = [
        f"in the {clipped(one.entry['model'])} model from layer {_layer(one.cell)} of {_layer(runs[one.name][-1]) + 1} on (there: "
        f"{_moved(one.cell)}; {_pairs(one.entry, one.cell)})"
        for one in found
    ]
    return Finding(
        f"The read-out token's residual stream alone carries more than half of a pair's reward gap {listed(said, comma='; ')}."
        f"{others(len(runs), len(found))}",
        "Said of the first layer from which on, up to the last, patching resid_post at the read-out token moves a share whose interval is "
        f"above one half, noising and denoising. {counted(len(runs), len(found), among=found[0].looked_at)}",
        (link("layers", "patching", found[0].name),),
    )


def moves_most(sections: Sections) -> Finding | None:
    """Of the outputs of attention and MLPs, or heads, the one whose patch moves the largest share of the reward gap."""
    runs = {name: (entry, _parts(entry)) for name, entry in sections.get("patching", {}).items() if _parts(entry)}
    every, found = sum(len(cells) for _, cells in runs.values()), []
    for name, (entry, cells) in runs.items():
        largest = max(cells, key=lambda cell: cell["noising"]["value"] + cell["denoising"]["value"])
        if all(side_of(largest[way], 0, 2 * every) > 0 for way in ("noising", "denoising")):
            found.append(_Taken(name, entry, largest, len(cells)))
    if not found:
        return None
    said = [
        f"of {one.looked_at:,} single patches in the {clipped(one.entry['model'])} model, {_place(one.cell)} has the largest share of "
        f"the reward gap within a pair: {_moved(one.cell)} ({_pairs(one.entry, one.cell)})"
        for one in found
    ]
    text = listed(said, most=2, comma="; ")
    return Finding(
        f"{text[0].upper()}{text[1:]}.{others(len(runs), len(found))}",
        "The largest of all patches of attention, MLPs and heads, noising and denoising together; said where both intervals, made wider "
        "for all patches of the run (Bonferroni), are above 0. The largest of many is likely a little overestimated. "
        f"{counted(len(runs), len(found), '')}",
        (link("patches", "patching", found[0].name),),
    )


def _parts(entry: PatchingEntry) -> list[PatchedCellJson]:
    """Patches of attention, MLPs and heads: not of the residual stream, which passes on what comes before it, and not of a given set."""
    return [cell for cell in entry["cells"] if not cell["kind"].startswith("resid") and cell["layer"] is not None]


def _layer(cell: PatchedCellJson) -> int:
    return -1 if cell["layer"] is None else cell["layer"]


def _moved(cell: PatchedCellJson) -> str:
    return f"noising {with_interval(cell['noising'])}, denoising {with_interval(cell['denoising'])}"


def _pairs(entry: PatchingEntry, cell: PatchedCellJson) -> str:
    return pairs_of(entry["pairs"], entry["dataset"], cell["noising"]["n"])


def _place(cell: PatchedCellJson) -> str:
    head = "" if cell["unit"] is None else f"head {cell['unit']} of "
    where = f"token {cell['where']}" if isinstance(cell["where"], int) else f"tokens: {cell['where']}"
    return f"{cell['kind']}, {head}layer {_layer(cell)} ({where})"


def decided_at(sections: Sections) -> Finding | None:
    """From which layer on the reward head tells chosen from rejected answers."""
    entries = sections.get("lens", {})
    among = sum(len(entry["accuracy"]) for entry in entries.values())
    found = {name: at for name, entry in entries.items() if (at := _first_clear(entry, among)) is not None}
    if not found:
        return None
    said = [_decided(entries[name], at) for name, at in found.items()]
    return Finding(
        f"Read from the residual stream, accuracy is clear of 50 %, on the side where it ends, {listed(said, comma='; ')}."
        f"{others(len(entries), len(found))}",
        "Said of the first depth from which on, up to the last, the interval of accuracy is on the same side of 50 %. "
        f"{counted(len(entries), len(found), among=among)}",
        (link("depths", "lens", next(iter(found))),),
    )


def _first_clear(entry: LensEntry, among: int) -> int | None:
    sides = [side_of(each, 0.5, among) for each in entry["accuracy"]]
    if not sides[-1]:
        return None
    return next(depth for depth in range(len(sides)) if all(side == sides[-1] for side in sides[depth:]))


def _decided(entry: LensEntry, at: int) -> str:
    middle, last, end = median_low(entry["decided_at_depth"]), len(entry["accuracy"]) - 1, entry["accuracy"][-1]
    pairs = pairs_of(entry["pairs"], entry["dataset"], end["n"])
    return (
        f"from {at} of {last} layers on in the {clipped(entry['model'])} model (accuracy {with_interval(entry['accuracy'][at])} there, "
        f"{with_interval(end)} at the end; half of {pairs} keep their preference from {middle} layers on)"
    )
