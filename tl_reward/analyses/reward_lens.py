"""Where in the model, and where in the text, a preference is decided: the reward read from every layer, and after every token."""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch, shared_prefix
from tl_reward.data.batches.padding import batch_tensor_on, places_in
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.reading import Reading
from tl_reward.devices import widest
from tl_reward.errors import summary_of
from tl_reward.measures.frames.columns import DataFrame, joined
from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.measures.json_types import RewardLensJson
from tl_reward.measures.scores import Scores
from tl_reward.model.heads.chosen import check_direction, output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import rewards_at, stream
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site


@dataclass(frozen=True, eq=False)
class RewardLens:
    """The reward head, applied to the residual stream before its last layer (the logit lens of nostalgebraist 2020, for rewards).

    Attributes:
        scores: by depth, from the embedding (0) to the last layer: rewards read at the read-out token, in raw reward units. The last
            ones are the model's rewards; the others are what it would say if the layers after it wrote nothing.
        curves: by pair, the reward at each token after the last layer. The model was trained to be read at the last token alone.
    """

    scores: tuple[Scores, ...]
    curves: tuple["TokenCurves", ...]

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.scores[-1].reading

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a depth and pair: the rewards that are read there, as `Scores.to_frame` has them. Depth 0 is the embedding."""
        return joined([scores.to_frame().assign(depth=depth) for depth, scores in enumerate(self.scores)])

    def margins(self) -> Float[np.ndarray, "depth pair"]:
        """The margin that is read at each depth, in raw reward units; the last ones are the model's."""
        return np.stack([scores.margin for scores in self.scores])

    def decided_at(self) -> Int[np.ndarray, " pair"]:
        """The first depth from which on the margin keeps the sign that it has at the end: 0 is the embedding, l + 1 is after layer l."""
        return decided(self.margins())

    def to_json(self) -> RewardLensJson:
        depths = self.decided_at()
        return {
            "pairs": len(self.scores[0]),
            "ids": list(self.scores[0].ids),
            "accuracy": [scores.accuracy().to_json() for scores in self.scores],
            "mean_margin": [scores.mean_margin().to_json() for scores in self.scores],
            "agreement": [_agreement(scores, self.scores[-1]).to_json() for scores in self.scores],
            "decided_at_depth": depths.tolist(),
            "decided_at_token": [curve.decided_at() for curve in self.curves],
            "tokens_after_prefix": [max(len(curve.chosen), len(curve.rejected)) - curve.shared for curve in self.curves],
        }


class TokenCurves(NamedTuple):
    """The reward at each token of a pair's transcripts, the tokens, and how many of them the two share from the start."""

    chosen: Float[Tensor, " token"]
    rejected: Float[Tensor, " token"]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    shared: int

    __repr__ = summary_of

    def margin(self) -> Float[np.ndarray, " token"]:
        """After each token past the shared prefix, the reward of the chosen transcript so far minus that of the rejected one so far. One
        that has ended keeps its last reward."""
        a, b = (side[self.shared :].numpy() for side in (self.chosen, self.rejected))
        steps = np.arange(max(len(a), len(b)))
        return a[np.minimum(steps, len(a) - 1)] - b[np.minimum(steps, len(b) - 1)]

    def decided_at(self) -> int:
        """The first token after the shared prefix from which on the margin keeps the sign that it has at the end."""
        return int(decided(self.margin()[:, None])[0])


def decided(margins: Float[np.ndarray, "step pair"]) -> Int[np.ndarray, " pair"]:
    """The first step from which on the sign is that of the last step. A margin of less than a thousandth of the pair's largest has none:
    it may be float error, as between transcripts that end with the same token, before the first layer.

    >>> decided(np.array([[1.0, -1.0, 2.0], [-1.0, 1.0, 2.0], [2.0, 3.0, 2.0]])).tolist()
    [2, 1, 0]
    """
    size = np.abs(margins)
    sign = np.where(size > 1e-3 * size.max(0), np.sign(margins), 0)
    differs = sign != sign[-1]
    return np.where(differs.any(0), len(margins) - differs[::-1].argmax(0), 0)


@checked
def reward_lens(model: HookedRewardModel, pairs: Pairs, *, progress: str | None = None, **options: Unpack[RunOptions]) -> RewardLens:
    """Reads the reward from the residual stream before the first layer and after every one, with the folded final norm.

    Args:
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: the reward is along no single direction; as `stream`.
    """
    check_direction(model)
    encoded = encode_for(model, pairs, **options)
    read = _Read(model, encoded)
    stream(model, encoded, read.sites, read, whole=True, progress=progress, **options)
    rewards, curves = read.rewards.cpu(), read.curves.cpu().split([len(row.ids) for row in encoded.rows])
    sides = [rewards[:, list(rows)].tolist() for rows in (encoded.chosen, encoded.rejected)]
    return RewardLens(
        scores=tuple(Scores.of(encoded.pairs, a, b, encoded.reading, output_name(model)) for a, b in zip(*sides, strict=True)),
        curves=tuple(
            TokenCurves(curves[a], curves[b], encoded.rows[a].ids, encoded.rows[b].ids, shared_prefix(encoded.rows[a], encoded.rows[b]))
            for a, b in zip(encoded.chosen, encoded.rejected, strict=True)
        ),
    )


class _Read:
    """Rewards by depth and row, and after each token of each row (`curves`, one row after the other)."""

    def __init__(self, model: HookedRewardModel, encoded: EncodedPairs) -> None:
        self._model = model
        n_layers = model.cfg.n_layers
        self._depth = {Site(0, "resid_pre"): 0} | {Site(layer, "resid_post"): layer + 1 for layer in range(n_layers)}
        self._last = Site(n_layers - 1, "resid_post")
        self.sites = list(self._depth)
        device = model.W_U.device
        self.rewards = torch.zeros(n_layers + 1, len(encoded.rows), dtype=widest(device), device=device)
        self._starts = [*accumulate((len(row.ids) for row in encoded.rows), initial=0)]
        self.curves = torch.zeros(self._starts[-1], device=device)
        # Of the batch: its rows, and where their last tokens are; where all their tokens are, and where these are in `curves`.
        self._row = self._at_end = self._places = self._in_curves = torch.empty(0)

    def begin(self, batch: Batch) -> None:
        places = [places_in(spans) for spans in batch.spans]
        starts = [self._starts[row] for row in batch.row.tolist()]
        self._row = batch.row
        self._at_end, self._places, self._in_curves = (
            batch_tensor_on(each, batch.row.device)
            for each in (
                torch.stack([each[-1] for each in places]),
                torch.cat(places),
                torch.cat([torch.arange(start, start + len(each)) for start, each in zip(starts, places, strict=True)]),
            )
        )

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        self.rewards[self._depth[site], self._row] = rewards_at(self._model, activation.index_select(0, self._at_end))
        if site == self._last:
            every = rewards_at(self._model, activation).float()
            self.curves[self._in_curves] = every.index_select(0, self._places)

    def end(self) -> None:
        pass

    def merge(self) -> None:
        parallel.add_up(self.rewards, self.curves)


def _agreement(scores: Scores, final: Scores) -> Estimate:
    """The share of pairs whose margin has the sign of the final one."""
    return bootstrap_mean((np.sign(scores.margin) == np.sign(final.margin)).astype(float), scores.prompts)
