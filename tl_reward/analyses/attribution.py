"""How much each neuron or head adds to the margin, to first order: all of them from one backward pass a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from tl_reward import parallel
from tl_reward.analyses.direct_attribution import direct_attribution
from tl_reward.analyses.discovery import discover
from tl_reward.data.alignment import align
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import pair_hash
from tl_reward.data.reading import Reading
from tl_reward.devices import WideSums, wide
from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.patches import patch_between
from tl_reward.measures.frames.columns import REWARD, DataFrame, frame, places
from tl_reward.measures.names import Method, check_method
from tl_reward.measures.neuron_statistics import pieces
from tl_reward.model.heads.chosen import check_direction, output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.baselines import Baseline, BaselineAtTokens, ConstantBaseline, CounterpartBaseline, OtherModelBaseline
from tl_reward.running.batches.batching import Grouping, Pairs, encode_for
from tl_reward.running.gradients import backpropagate
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site, UnitShape, UnitSite, Where, check_where, unit_shape


@dataclass(frozen=True, eq=False)
class Attribution:
    """Estimated effects on the margin, mean over pairs (weighted, where they were given weights), in raw reward units, float32.

    Attributes:
        effect: positive: the neuron (or head), as against its baseline, *raises* the margin, so that ablating it would lower it.
        error: the standard error of `effect` over prompts, of which each may have several pairs; inf where there is one prompt alone, or
            where the method gives none.
        pairs: the hash of each pair that it comes from.
        prompts: how many different ones these have.
        reading: how many pairs were given, and how many left out, by reason.
        output: as in `Scores`.
    """

    effect: Float[Tensor, "layer neuron"]
    error: Float[Tensor, "layer neuron"]
    pairs: tuple[str, ...]
    prompts: int
    reading: Reading | None = None
    output: str = ""

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron (or head): its effect on the margin and the standard error, in reward units, and `q_value`."""
        effect = {f"effect ({REWARD})": self.effect, f"standard error ({REWARD})": self.error, "q_value": self.q_value()}
        return frame(places(self.effect.shape) | effect)

    def q_value(self) -> Float[Tensor, "layer neuron"]:
        """The false discovery rate at which the neuron would be said to have an effect, among all of them (Benjamini and Hochberg 1995),
        by a t-test over prompts."""
        effect, error = self.effect.double().numpy(), self.error.double().numpy()
        t = np.divide(effect, error, out=np.zeros_like(effect), where=error > 0)
        p = 2 * stats.t.sf(np.abs(t), max(self.prompts - 1, 1))
        return torch.from_numpy(stats.false_discovery_control(p.ravel()).reshape(p.shape)).float()


@checked
@torch.inference_mode(False)  # else, called from inference mode, the sums could not be added to in a backward pass
def attribute(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    site: UnitSite = "mlp_post",
    baseline: Literal["zero", "pair"] | HookedRewardModel | Float[Tensor, "layer neuron ..."] = "zero",
    steps: int | None = None,
    where: Where = "all",
    weights: Sequence[float] | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Attribution:
    """The effect of every neuron on the margin: what it has beyond a baseline, times the gradient, summed over tokens.

    This is attribution patching (Nanda 2023; Syed et al. 2023). It takes one forward and one backward pass a batch for all neurons of
    all layers. It misses what is not linear: `exact_effects.compare_with_exact` says by how much, against exact ablation.

    Args:
        site: "mlp_post" or "mlp_gate" for neurons, "attn_z" for heads.
        baseline: "zero"; a constant for each neuron, such as its mean (for heads [layer, head, d_head]); or "pair": what the neuron is
            in the other transcript of the pair, at the same place from the start where the two begin alike, and from there on at the
            same distance from the read-out token. Tokens that the other one has no place for count nothing. Or another reward model: what
            the neuron is there, on the same tokens; then `effect` estimates what patching the neuron from it takes off the margin.
        steps: with a number, integrated gradients: the mean gradient on the path on which all neurons go together from the baseline to
            what they are. Against zero, effects then add up to the margin minus that of the model without any neuron, as steps grow
            (but not where a norm follows the MLP, as in Gemma-2 and OLMo-2: it undoes the growth).
        where: the tokens at which the neuron is what it is beyond the baseline; at all others it stays.
        weights: of the pairs that are read, at least 0: the effect is on their weighted mean margin. With `scores.loss_weights` it is
            minus that on the Bradley-Terry loss, which is about pairs that are ranked wrong.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: an activation or a gradient is not finite; a budget is too small; less than 1 step; a baseline of another shape; a pair
            without a shared prefix, where the baseline is the pair; weights that are not one a pair, below 0, or all 0.
    """
    shape = unit_shape(model.cfg, site)
    encoded = encode_for(model, pairs, gradients=True, **options)
    if isinstance(baseline, str) and baseline == "pair":
        align(encoded)  # says which pair cannot be aligned
        encoded = encoded.apart()
        grouping = Grouping(encoded.pair_of_row, whole=True)
    else:
        grouping = Grouping(encoded.prompts)
    of_pairs = weights_of(weights, encoded)
    sums = PromptSums(encoded, shape, steps or 1, model.cfg.device, of_pairs)
    sites = [Site(layer, site) for layer in range(shape.layers)]
    check_where(where)
    against = _baseline(baseline, sites, model)
    against = against if where == "all" else BaselineAtTokens(where, against)
    backpropagate(
        model, encoded, sites, sums, steps=steps, baseline=against, grouping=grouping, weights=of_pairs, progress=progress, **options
    )
    hashes = tuple(pair_hash(pair) for pair in encoded.pairs)
    return Attribution(sums.mean().float(), sums.standard_error().float(), hashes, sums.prompts, encoded.reading, output_name(model))


def weights_of(given: Sequence[float] | None, encoded: EncodedPairs) -> Float[Tensor, " pair"]:
    """One for each pair; 1 by default. Raises InputError as `attribute`."""
    weights = torch.ones(len(encoded.pairs)) if given is None else torch.as_tensor(np.asarray(given, dtype=float)).float()
    if len(weights) != len(encoded.pairs):
        raise InputError(f"there must be a weight for each of {len(encoded.pairs)} pairs that are read, got {len(weights)}")
    if not ((weights >= 0) & weights.isfinite()).all() or not weights.any():
        raise InputError("weights of pairs must be finite and at least 0, and not all 0")
    return weights


class PromptSums:
    """Sums over prompts of their effects, and of their squares, in float64. A prompt's rows may come in several batches: until it has
    all of them, its effects are kept (`_open`, [prompt, unit] of each layer, the prompts in the order of `_labels`)."""

    def __init__(self, encoded: EncodedPairs, shape: UnitShape, steps: int, device: Any, weights: Float[Tensor, " pair"]) -> None:
        self._shape, self._steps, self._device = shape, steps, device
        self._total, self._square, self._cross = (WideSums(*shape, device=device) for _ in range(3))
        self._prompt = torch.tensor(encoded.prompts)
        self._pairs = torch.bincount(self._prompt[list(encoded.chosen)], weights.double())  # [prompt]: as many as their weights say
        self.prompts = len(self._pairs)
        self._left = torch.bincount(self._prompt)  # [prompt]: rows to come
        self._open: dict[int, Float[Tensor, "prompt unit"]] = {}
        self._labels: list[int] = []
        # Of the batch: 1 where a token is part of a prompt; which prompts it ends, with their pairs; what it takes from `_open` for which
        # of its prompts, and what it leaves of `_open` and then of its own, None where that is nothing; the steps that each layer has had.
        self._within = self._ends = self._count = torch.empty(0)
        self._takes: tuple[Tensor, ...] | None = None
        self._leaves: Tensor | None = None
        self._so_far: dict[int, Float[Tensor, "prompt unit"]] = {}
        self._seen = [0] * shape.layers

    def begin(self, batch: Batch) -> None:
        device = batch.row.device
        labels, place = self._prompt[batch.row.cpu()].unique(return_inverse=True)
        of_row = torch.nn.functional.one_hot(place, len(labels)).T.float()
        self._within = (batch.occurrences(batch_tensor_on(of_row, device)) > 0).float()
        self._left[labels] -= torch.bincount(place)
        ends = (self._left[labels] == 0).nonzero()[:, 0]
        count = self._pairs[labels[ends], None].to(self._total.dtype)
        self._ends, self._count = (batch_tensor_on(each, device) for each in (ends, count))
        here, known = labels.tolist(), self._labels
        taken = [(i, here.index(label)) for i, label in enumerate(known) if label in here]
        kept = [i for i, label in enumerate(known) if label not in here]
        stay = (self._left[labels] > 0).nonzero()[:, 0].tolist()
        self._takes = tuple(batch_tensor_on(each, device) for each in torch.tensor(taken).T) if taken else None
        self._leaves = batch_tensor_on(torch.tensor([*kept, *(len(known) + i for i in stay)]), device) if kept or stay else None
        self._labels = [*(known[i] for i in kept), *(here[i] for i in stay)]
        self._seen = [0] * self._shape.layers

    def layer(self, site: Site, excess: Float[Tensor, "token unit *d"], gradient: Float[Tensor, "token unit *d"]) -> None:
        layer = site.layer
        parts = []
        for here in pieces(excess):
            products = excess[here].float() * gradient[here].float()
            parts.append(self._within[:, here] @ (products.sum(2) if products.ndim == 3 else products))
        effects = wide(torch.stack(parts)).sum(0)
        self._total.add(layer, effects.sum(0))
        if layer in self._so_far:
            effects = effects + self._so_far.pop(layer)
        elif self._takes is not None:
            at, to = self._takes
            effects = effects.index_add(0, to, self._open[layer].index_select(0, at))
        self._seen[layer] += 1
        if self._seen[layer] < self._steps:
            self._so_far[layer] = effects
            return
        if self._leaves is not None:
            before = [self._open[layer]] if layer in self._open else []
            self._open[layer] = torch.cat([*before, effects]).index_select(0, self._leaves)
        else:
            self._open.pop(layer, None)
        self._close(layer, effects.index_select(0, self._ends), self._count)

    def _close(self, layer: int, effects: Float[Tensor, "prompt unit"], pairs: Float[Tensor, "prompt 1"]) -> None:
        self._square.add_each(layer, effects**2)
        self._cross.add_each(layer, effects * pairs)

    def end(self) -> None:
        pass

    def merge(self) -> None:
        """Adds up what all processes have. Prompts whose rows came to several of them are squared only then."""
        for sums in (self._total, self._square, self._cross):
            sums.merge()
        split = sorted({prompt for each in parallel.gathered(self._labels) for prompt in each})
        at = [split.index(label) for label in self._labels]
        for layer in range(self._shape.layers if split else 0):
            effects = torch.zeros(len(split), self._shape.units, dtype=torch.float64)
            if at:
                effects[at] = self._open.pop(layer).cpu().double()
            parallel.add_up(effects)
            count = self._pairs[split, None].to(self._total.dtype)
            self._close(layer, effects.to(self._total.dtype).to(self._device), count.to(self._device))
        self._labels = []

    def mean(self) -> Float[Tensor, "layer unit"]:
        return self._total.total() / self._pairs.sum()

    def standard_error(self) -> Float[Tensor, "layer unit"]:
        """Of the mean over pairs, where prompts are independent and pairs of one prompt are not (Cameron and Miller 2015)."""
        assert not self._labels
        if self.prompts == 1:
            return torch.full(self._shape, torch.inf, dtype=torch.float64)
        mean = self.mean()
        variance = self._square.total() - 2 * mean * self._cross.total() + mean**2 * (self._pairs**2).sum()
        return (variance.clamp(min=0) * self.prompts / (self.prompts - 1)).sqrt() / self._pairs.sum()


def _baseline(baseline: str | Tensor | HookedRewardModel, sites: list[Site], model: HookedRewardModel) -> Baseline | None:
    if isinstance(baseline, Tensor):
        shape = [*unit_shape(model.cfg, sites[0].kind), *([model.cfg.d_head] if sites[0].kind == "attn_z" else [])]
        if list(baseline.shape) != shape:
            raise InputError(f"baseline must have the model's shape {shape}, got {list(baseline.shape)}")
        return ConstantBaseline(baseline)
    if isinstance(baseline, HookedRewardModel):
        if baseline is model:
            raise InputError("the baseline must be another model than the one whose neurons are attributed")
        source = patch_between(model, baseline)
        source.expect([site.hook_name for site in sites])
        return OtherModelBaseline(source)
    if baseline not in ("zero", "pair"):
        raise InputError(f"baseline must be zero, pair, a model or a tensor, got {baseline!r}")
    return CounterpartBaseline() if baseline == "pair" else None


STEPS = 8


def check_estimate(method: str, site: str) -> None:
    """Says no before an hour of work: raises InputError for an unknown method, or one that is not for what is at this site."""
    check_method(method)
    if method == "mean" and site == "attn_z":
        raise InputError("method mean is for neurons; for heads choose gradient, integrated, pair or direct")


@checked
def estimate(
    model: HookedRewardModel,
    pairs: Pairs,
    method: Method,
    *,
    site: UnitSite = "mlp_post",
    steps: int = STEPS,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Attribution:
    """Every neuron's effect on the margin by one method. Positive: the neuron raises the margin.

    Args:
        method: one of `names.METHODS`.
        steps: of "integrated".

    Raises:
        InputError: an unknown method; "mean" for heads, whose mean is a vector (`attribute` takes it as its baseline); "direct" where the
            reward is along no single direction.
    """
    check_estimate(method, site)
    if method == "direct":
        check_direction(model)
    encoded = encode_for(model, pairs, gradients=True, **options)
    if method == "gradient":
        return attribute(model, encoded, site=site, progress=progress, **options)
    if method == "integrated":
        return attribute(model, encoded, site=site, steps=steps, progress=progress, **options)
    if method == "pair":
        return attribute(model, encoded, site=site, baseline="pair", progress=progress, **options)
    if method == "mean":
        mean = discover(model, encoded, sites=(site,), **options).ranking("mean", site)
        return attribute(model, encoded, site=site, baseline=mean, progress=progress, **options)
    found = direct_attribution(model, encoded, progress=progress, **options)
    by_side = found.head if site == "attn_z" else found.neuron
    effect = by_side[0] - by_side[1]
    error = torch.full_like(effect, torch.inf)
    return Attribution(effect, error, found.pairs, len(set(encoded.prompts)), encoded.reading, found.output)
