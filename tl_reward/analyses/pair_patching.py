"""What suffices to move a reward within a pair: one transcript's run, patched from the other's, site by site."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Unpack, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.arguments import check_argument
from tl_reward.data.alignment import Alignment, align
from tl_reward.data.batches.packing import Batch
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.reading import Reading
from tl_reward.data.text import token_texts
from tl_reward.devices import WideSums, wide
from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.patches import Patch, Source, pair_tokens
from tl_reward.measures.agreement import Agreement, measure_agreement
from tl_reward.measures.frames.columns import REWARD, SHARE, DataFrame, estimates, frame, joined
from tl_reward.measures.intervals import Estimate, bootstrap_ratio
from tl_reward.measures.json_types import PairPatchingJson, TokenPairJson
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.baselines import CounterpartBaseline
from tl_reward.running.batches.batching import Grouping, Pairs, encode_for, tokenizer_of
from tl_reward.running.gradients import backpropagate
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import sweep
from tl_reward.sites import Site, SiteKind, Where, check_site_kind, unit_shape

Direction = Literal["noising", "denoising"]


class PatchedPlace(NamedTuple):
    """One patch: a site of a layer, at some tokens; of "attn_z" one head. A set of neurons has no layer."""

    kind: SiteKind
    where: Where | int
    layer: int | None
    unit: int | None = None

    @property
    def site(self) -> Site:
        assert self.layer is not None
        return Site(self.layer, self.kind)


@dataclass(frozen=True, eq=False)
class PairPatching:
    """What patching each cell moves, pair by pair, in raw reward units.

    Attributes:
        clean: the model without a patch.
        noised: [cell, pair]: by how much the chosen reward falls when it is patched from the rejected transcript.
        denoised: [cell, pair]: by how much the rejected reward rises when it is patched from the chosen transcript.
        noised_estimate, denoised_estimate: the same by attribution patching, from one backward pass; of a set of neurons the sum over them,
            which counts twice what reaches the reward through two of its layers.
        alignment: of each pair, which tokens stand for each other.
        tokens: of each cell, how many tokens it replaced, over all chosen (0) and all rejected (1) transcripts.
    """

    cells: tuple[PatchedPlace, ...]
    clean: Scores
    noised: Float[np.ndarray, "cell pair"]
    denoised: Float[np.ndarray, "cell pair"]
    noised_estimate: Float[np.ndarray, "cell pair"]
    denoised_estimate: Float[np.ndarray, "cell pair"]
    alignment: tuple[Alignment, ...]
    tokens: Int[np.ndarray, "cell side"]

    def moved(self, direction: Direction) -> Float[np.ndarray, "cell pair"]:
        """`noised` for "noising", `denoised` for "denoising"; in raw reward units.

        Raises:
            InputError: another word.
        """
        check_argument("direction", direction, Direction)
        return self.noised if direction == "noising" else self.denoised

    def share(self, direction: Direction) -> list[Estimate]:
        """The share of the gap between a pair's rewards that each cell moves; 1 is all of it. The mean over pairs, each weighted by its
        gap, with its interval over prompts. Where the rejected reward is the higher one, the gap is closed the other way."""
        return [gap_share(row, self.clean) for row in self.moved(direction)]

    def agreement(self) -> Agreement:
        """Of attribution patching with exact patching, over cells: the mean change of the margin, noising and denoising together."""
        exact, estimated = self.noised + self.denoised, self.noised_estimate + self.denoised_estimate
        return measure_agreement(estimated.mean(1), exact.mean(1))

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.clean.reading

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a cell and direction: the share of the gap that it moves, with its interval, and the mean of what moves in reward units,
        beside its estimate. A set of neurons has layer -1, a site without heads unit -1."""
        cells = {
            "site": [cell.kind for cell in self.cells],
            "where": [str(cell.where) for cell in self.cells],
            "layer": [-1 if cell.layer is None else cell.layer for cell in self.cells],
            "unit": [-1 if cell.unit is None else cell.unit for cell in self.cells],
        }
        estimated = {"noising": self.noised_estimate, "denoising": self.denoised_estimate}
        return joined(
            [
                frame(
                    cells
                    | {"direction": direction, f"moved ({REWARD})": self.moved(direction).mean(1)}
                    | {f"estimated ({REWARD})": estimated[direction].mean(1)}
                    | estimates("gap moved", SHARE, self.share(direction))
                    | {"tokens (count)": self.tokens[:, side]}
                )
                for side, direction in enumerate(get_args(Direction))
            ]
        )

    def to_json(self) -> PairPatchingJson:
        columns = zip(self.cells, self.share("noising"), self.share("denoising"), self.noised, self.denoised, self.tokens, strict=True)
        aligned = np.array(self.alignment)
        return {
            "pairs": len(self.clean),
            "ids": list(self.clean.ids),
            "clean": self.clean.to_json(),
            "cells": [
                {
                    "kind": cell.kind,
                    "where": cell.where,
                    "layer": cell.layer,
                    "unit": cell.unit,
                    "noising": noising.to_json(),
                    "denoising": denoising.to_json(),
                    "noised": float(a.mean()),
                    "denoised": float(b.mean()),
                    "tokens": count.tolist(),
                }
                for cell, noising, denoising, a, b, count in columns
            ],
            "agreement": self.agreement().to_json() if len(self.cells) >= 3 else None,
            "aligned": {name: aligned[:, i].tolist() for i, name in enumerate(Alignment._fields)},
        }


def gap_share(moved: Float[np.ndarray, " pair"], clean: Scores) -> Estimate:
    """See `PairPatching.share`.

    >>> clean = Scores(("a", "b"), np.array([3.0, 0.0]), np.array([1.0, 1.0]), ("a", "b"), ("", ""))
    >>> gap_share(np.array([1.0, -1.0]), clean).value  # half of a gap of 2, and all of one of 1
    0.6666666666666666
    """
    return bootstrap_ratio(np.sign(clean.margin) * moved, np.abs(clean.margin), clean.prompts)


@checked
def patch_pairs(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    kinds: Sequence[SiteKind] = ("resid_post", "attn_out", "mlp_out"),
    where: Sequence[Where | int] = ("all",),
    neurons: NeuronSet | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> PairPatching:
    """Patches each transcript's run from the other one of its pair, one site at a time, in both directions at once.

    Tokens are aligned as `alignment.align` says. The shared prefix is the same in both runs, so patching it would change nothing.

    Args:
        kinds: which sites, in every layer; of "attn_z" each head by itself.
        where: which tokens; "all" are those after the shared prefix that have a counterpart.
        neurons: with some, a last cell for each `where` that patches them together (at "mlp_post").
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: a pair that shares no prefix; a place outside a transcript; no cell.
    """
    encoded = encode_for(model, pairs, gradients=True, **options)
    alignment = tuple(align(encoded))
    _check_places(encoded, alignment, where)
    if neurons is not None:
        neurons.check_fits(*unit_shape(model.cfg, "mlp_post"))  # says which one the model does not have
    cells = _cells(model, kinds, where)
    sets = [PatchedPlace("mlp_post", at, None) for at in where] if neurons else []
    if not cells and not sets:
        raise InputError("nothing to patch: give kinds of sites, or neurons, and where")
    source = Source(model)
    patches = [_patch(source, cell) for cell in cells]
    patches += [Patch(source, neurons, where=cell.where, within_pair=True) for cell in sets if neurons is not None]
    # First, since it takes less long to refuse an edit that gradients do not go with.
    estimate = _estimate(model, encoded, cells, sets, neurons, progress=f"{progress}, estimate" if progress else None, **options)
    clean, *patched = sweep(model, encoded, [(), *([patch] for patch in patches)], progress=progress, **options)
    return PairPatching(
        cells=(*cells, *sets),
        clean=clean,
        noised=np.stack([clean.chosen - scores.chosen for scores in patched]),
        denoised=np.stack([scores.rejected - clean.rejected for scores in patched]),
        noised_estimate=estimate.moved[:, 0],
        denoised_estimate=estimate.moved[:, 1],
        alignment=alignment,
        tokens=estimate.tokens,
    )


@checked
def aligned_tokens(model: HookedRewardModel, pair: PreferencePair, **options: Unpack[RunOptions]) -> list[TokenPairJson]:
    """The text of each place at which a pair's transcripts are aligned after their shared prefix, up to the read-out token."""
    encoded = encode_for(model, [pair], gradients=True, **options)
    tokenizer = tokenizer_of(model)
    (found,) = align(encoded)
    sides = {"chosen": encoded.chosen[0], "rejected": encoded.rejected[0]}
    texts = {side: token_texts(encoded.rows[row].ids, tokenizer)[-found.aligned :] for side, row in sides.items()}
    return [{"chosen": chosen, "rejected": rejected} for chosen, rejected in zip(texts["chosen"], texts["rejected"], strict=True)]


def _cells(model: HookedRewardModel, kinds: Sequence[SiteKind], where: Sequence[Where | int]) -> list[PatchedPlace]:
    for kind in kinds:
        check_site_kind(kind)
    units: dict[SiteKind, Sequence[int | None]] = {kind: range(model.cfg.n_heads) if kind == "attn_z" else (None,) for kind in kinds}
    return [
        PatchedPlace(kind, at, layer, unit) for kind in units for at in where for layer in range(model.cfg.n_layers) for unit in units[kind]
    ]


def _patch(source: Source, cell: PatchedPlace) -> Patch:
    if cell.unit is None:
        return Patch(source, [cell.site], where=cell.where, within_pair=True)
    return Patch(source, NeuronSet([(cell.site.layer, cell.unit)]), "attn_z", where=cell.where, within_pair=True)


@checked
def _estimate(
    model: HookedRewardModel,
    encoded: EncodedPairs,
    cells: Sequence[PatchedPlace],
    sets: Sequence[PatchedPlace],
    neurons: NeuronSet | None,
    *,
    progress: str | None,
    **options: Unpack[RunOptions],
) -> "_Estimate":
    """Attribution patching (Nanda 2023): the difference to the counterpart times the gradient, summed over the patched tokens."""
    apart = encoded.apart()
    sums = _Sums(apart, [*cells, *sets], neurons or NeuronSet(), model.cfg.device)
    grouping = Grouping(apart.pair_of_row, whole=True)
    backpropagate(model, apart, sums.sites, sums, baseline=CounterpartBaseline(), grouping=grouping, progress=progress, **options)
    sides = [list(apart.chosen), list(apart.rejected)]
    moved, tokens = sums.moved.total(), {at: count.cpu().numpy() for at, count in sums.tokens.items()}
    counts = np.stack([[tokens[cell.where][rows].sum() for rows in sides] for cell in sums.cells])
    return _Estimate(np.stack([moved[:, rows].numpy() for rows in sides], axis=1), counts)


class _Estimate(NamedTuple):
    moved: Float[np.ndarray, "cell side pair"]
    tokens: Int[np.ndarray, "cell side"]


class _Sums:
    """For each cell and row, the reward that it is estimated to move (`moved`), and by `where` how many tokens are patched (`tokens`)."""

    def __init__(self, encoded: EncodedPairs, cells: Sequence[PatchedPlace], neurons: NeuronSet, device: Any) -> None:
        self.cells, self._neurons = cells, neurons.by_layer(device)
        self.moved = WideSums(len(cells), len(encoded.rows), device=device)
        self.tokens: dict[Where | int, Int[Tensor, " row"]] = {
            cell.where: torch.zeros(len(encoded.rows), dtype=torch.long, device=device) for cell in cells
        }
        self._of_site: dict[Site, list[int]] = {}
        for i, cell in enumerate(cells):
            for layer in [cell.layer] if cell.layer is not None else self._neurons:
                self._of_site.setdefault(Site(layer, cell.kind), []).append(i)
        self.sites = list(self._of_site)
        # Of the batch: its rows, and by `where` 1 at the tokens of a row that are patched.
        self._row = torch.empty(0, dtype=torch.long)
        self._within: dict[Where | int, Float[Tensor, "row token"]] = {}

    def begin(self, batch: Batch) -> None:
        self._row = batch.row
        rows = batch.occurrences(torch.eye(len(batch.row), device=batch.row.device))
        self._within = {at: rows * pair_tokens(batch, at).patched for at in self.tokens}
        for at, mask in self._within.items():
            self.tokens[at][self._row] = mask.sum(1).long()

    def layer(self, site: Site, excess: Tensor, gradient: Tensor) -> None:
        kind = torch.promote_types(excess.dtype, torch.float32)
        product = excess.to(kind) * gradient.to(kind)  # the gradient is of chosen minus rejected rewards, so both sides have one sign
        for i in self._of_site[site]:
            cell = self.cells[i]
            if cell.unit is not None:
                here = product[:, cell.unit].sum(1)
            elif cell.layer is None:
                here = product.index_select(1, self._neurons[site.layer]).sum(1)
            else:
                here = product.flatten(1).sum(1)
            self.moved.add((i, self._row), wide(self._within[cell.where].to(here) @ here))

    def end(self) -> None:
        pass

    def merge(self) -> None:
        self.moved.merge()
        parallel.add_up(*self.tokens.values())


def _check_places(encoded: EncodedPairs, alignment: Sequence[Alignment], where: Sequence[Where | int]) -> None:
    for at in [at for at in where if isinstance(at, int)]:
        for pair, aligned in zip(encoded.pairs, alignment, strict=True):
            if not -aligned.aligned <= at < 0:
                raise InputError(
                    f"pair {pair.id}: a place must be in [-{aligned.aligned}, -1], counted from the read-out token back to where both "
                    f"transcripts have one after their shared prefix, got {at}"
                )
