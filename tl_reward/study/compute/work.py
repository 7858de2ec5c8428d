"""What does each kind of cell compute?"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from tl_reward.analyses.ablation_curves import ablate_sets
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.model_patching import patch_edit
from tl_reward.devices import forget_cached
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.measures.names import RankingName
from tl_reward.measures.overlap import regions
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.training import RECORD_FILE, clear_saves, last_checkpoint, saves_of, train
from tl_reward.neurons import NeuronSet
from tl_reward.results.provenance import provenance
from tl_reward.results.record_neurons import record_discovery, record_tops
from tl_reward.results.store import Results
from tl_reward.running.options import RunOptions
from tl_reward.running.scoring import score
from tl_reward.study.compute.cells import Cell, draws_of, max_length_of
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.store import (
    MODEL,
    RUN,
    SITE,
    content_of,
    finish,
    folder_of,
    found_of,
    is_done,
    kept_scores,
    missing_fractions,
    record_edited,
    start,
)
from tl_reward.study.matrix import BF16, FRACTION, Found, ModelEdit
from tl_reward.study.top_sets import cut, study_regions


def make(cell: Cell, out: Path, inputs: Inputs, *, tokens: int = 0) -> None:
    """Computes a cell whose needs are done, and puts it in its place. Nothing is computed where all that it needs was made again and holds
    the same.

    Args:
        tokens: noted beside it, for the times of later plans; not where a training goes on, whose time is of its end alone.
    """
    if is_done(out, cell, inputs):
        return
    begin = time.monotonic()
    scratch = start(out, cell, inputs)
    fresh = not (scratch / MODEL).exists()
    if cell.kind in ("train", "retrain"):
        _train_cell(cell, out, inputs, scratch)
    else:
        results = Results(provenance=provenance(seed=cell.seed))
        _KINDS[cell.kind](cell, out, inputs, results)
        results.save(scratch / RUN, overwrite=True)
    finish(out, cell, inputs, seconds=time.monotonic() - begin, tokens=tokens if fresh else 0)


def _train_cell(cell: Cell, out: Path, inputs: Inputs, scratch: Path) -> None:
    folder = scratch / MODEL
    if (folder / RECORD_FILE).exists():  # it was trained to its end, and cut short right after
        if saves_of(folder).exists():
            clear_saves(folder)
        return
    config = dataclasses.replace(inputs.config.training, seed=cell.seed)
    without = None
    if cell.kind == "retrain":
        config = dataclasses.replace(config, max_pairs=inputs.config.retrain.pairs)
        without = _without(cell, out, inputs)
    resume = last_checkpoint(folder) is not None
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    pairs, source = inputs.train(cell.objective).pairs, inputs.base_at_revision(cell.base)
    how, progress = "pruned" if cell.edit.kind == "pruned" else "masked", f"{cell.kind} {cell.name}"
    train(source, pairs, folder, config, without=without, how=how, resume=resume, progress=None if sys.stderr.isatty() else progress)


def _score_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    pairs, tasks, _ = inputs.tested(*cell.tested)
    without = _without(cell, out, inputs) if cell.edit.kind == "masked" else None
    options = _options(cell, inputs)
    if without:
        options["interventions"] = [ZeroAblation(without)]
    record_edited(results, cell, {cell.edit: score(_model(cell, out, inputs), pairs, **options)}, tasks)


def _discover_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    model, config = _model(cell, out, inputs), inputs.config
    base = _base(inputs.base_at_revision(cell.base), config.dtype)
    found = discover(model, inputs.find(cell.objective).pairs, base=base, sites=[SITE], **_options(cell, inputs))
    record_discovery(results, cell.objective, "training pairs", found)
    if config.conventions == "study":
        rounded = discover(
            model, inputs.find(cell.objective).pairs, base=base, sites=[SITE], sums_dtype=torch.bfloat16, **_options(cell, inputs)
        )
        record_discovery(results, cell.objective + BF16, "training pairs", rounded)


def _firing_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    found = discover(_model(cell, out, inputs), inputs.find("mixed").pairs, sites=[SITE], **_options(cell, inputs))
    record_discovery(results, cell.objective, "training pairs of both objectives", found)


def _ablate_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    config, (pairs, tasks, _) = inputs.config, inputs.tested(*cell.tested)
    *_, found_in = cell.needs
    assert cell.ranking
    scores = kept_scores(out, cell, inputs)
    tops = _tops(found_in, out, inputs, cell.ranking, missing_fractions(out, cell, inputs))
    if tops:
        sets = {str(fraction): neurons for fraction, neurons in tops.items()}
        options = _options(cell, inputs)
        found = ablate_sets(_model(cell, out, inputs), pairs, sets, draws=draws_of(cell, config), seed=cell.seed, **options)
        for fraction in tops:
            point = found.sets[str(fraction)]
            scores[ModelEdit("top", cell.ranking, fraction)] = point.ranked
            scores |= {ModelEdit("random", f"{cell.ranking} {i}", fraction): draw for i, draw in enumerate(point.random)}
    record_edited(results, cell, scores, tasks)


def _compare_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    for ranking in inputs.config.rankings:
        if ranking == "random":
            continue
        kind = "firing" if ranking == "entropy" else "discover"
        found = {each.objective: _found(each, out, ranking) for each in cell.needs if each.kind == kind}
        tops = {name: top for name, one in found.items() if (top := cut(one, ranking, FRACTION, inputs.config.conventions)) is not None}
        if len(tops) == len(found):
            rankings = {name: one.rankings[ranking] for name, one in found.items()}
            record_tops(results, rankings, tops, score=ranking, site=SITE, fraction=FRACTION)


def _sets_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    config, (pairs, tasks, _) = inputs.config, inputs.tested(*cell.tested)
    scores, missing = kept_scores(out, cell, inputs), missing_fractions(out, cell, inputs)
    helpful, harmless = (
        _tops(discover, out, inputs, config.rankings[0], missing)
        for name in ("helpful", "harmless")
        if (discover := cell.needed("discover", name)) is not None
    )
    split = study_regions if config.conventions == "study" else regions
    sets = {
        ModelEdit("set", name, fraction): neurons
        for fraction in missing
        for name, neurons in split(helpful[fraction], harmless[fraction]).items()
    }
    if sets:
        named = {str(i): neurons for i, neurons in enumerate(sets.values())}
        found = ablate_sets(_model(cell, out, inputs), pairs, named, draws=0, **_options(cell, inputs))
        scores |= {edit: found.sets[str(i)].ranked for i, edit in enumerate(sets)}
    record_edited(results, cell, scores, tasks)


def _patch_cell(cell: Cell, out: Path, inputs: Inputs, results: Results) -> None:
    config, (pairs, tasks, _) = inputs.config, inputs.tested(*cell.tested)
    discover, ranking, scores = cell.needed("discover"), config.rankings[0], kept_scores(out, cell, inputs)
    assert discover is not None
    tops = _tops(discover, out, inputs, ranking, missing_fractions(out, cell, inputs))
    if tops:
        model, source = _model(cell, out, inputs), _model(dataclasses.replace(cell, objective="helpful"), out, inputs)
        named = {str(fraction): neurons for fraction, neurons in tops.items()}
        found = ablate_sets(model, pairs, named, draws=0, edit=patch_edit(model, source), **_options(cell, inputs))
        scores |= {ModelEdit("patched", ranking, fraction): found.sets[str(fraction)].ranked for fraction in tops}
    record_edited(results, cell, scores, tasks)


_KINDS = {
    "score": _score_cell, "discover": _discover_cell, "firing": _firing_cell, "ablate": _ablate_cell,
    "compare": _compare_cell, "sets": _sets_cell, "patch": _patch_cell,
}  # fmt: skip


def _options(cell: Cell, inputs: Inputs) -> RunOptions:
    return {"max_length": max_length_of(cell, inputs.config)}


def _tops(discover: Cell, out: Path, inputs: Inputs, ranking: RankingName, fractions: tuple[float, ...]) -> Mapping[float, NeuronSet]:
    """By share, those that there are."""
    found = _found(discover, out, ranking)
    tops = {fraction: cut(found, ranking, fraction, inputs.config.conventions) for fraction in fractions}
    return {fraction: top for fraction, top in tops.items() if top is not None}


def _found(discover: Cell, out: Path, ranking: RankingName) -> Found:
    return found_of(Results.load(folder_of(out, discover) / RUN), discover, [ranking])


def _without(cell: Cell, out: Path, inputs: Inputs) -> NeuronSet | None:
    """The neurons that a model is trained again without; None of the control."""
    discover = cell.needed("discover")
    assert discover is not None
    share, ranking = cell.edit.fraction, inputs.config.retrain.ranking
    return _tops(discover, out, inputs, ranking, (share,))[share] if share else None


def _model(cell: Cell, out: Path, inputs: Inputs) -> HookedRewardModel:
    """The reward model that a cell is about: trained again, trained, or embedded."""
    made = cell.needed("retrain", cell.objective) or cell.needed("train", cell.objective)
    # What it holds is part of what is remembered: a folder may be made again within one process.
    path, version = (folder_of(out, made) / MODEL, content_of(out, made)) if made else (embedded.ADAPTERS / cell.objective, "")
    return _loaded(path, version, inputs.config.dtype)


@lru_cache(maxsize=2)
def _loaded(path: Path, version: str, dtype: str) -> HookedRewardModel:
    return HookedRewardModel.from_pretrained(path, dtype=getattr(torch, dtype))


@lru_cache(maxsize=1)
def _base(source: str, dtype: str) -> HookedRewardModel:
    return HookedRewardModel.from_base(source, dtype=getattr(torch, dtype))


def forget() -> None:
    """Lets go of the models that are kept for the next cell."""
    _loaded.cache_clear()
    _base.cache_clear()
    forget_cached()
