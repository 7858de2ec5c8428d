"""Which neurons tell chosen transcripts from rejected ones: each transcript gives one number, and the sides are compared."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.devices import WideSums, wide, widest
from tl_reward.errors import InputError, summary_of
from tl_reward.measures.frames.columns import DataFrame, frame, places
from tl_reward.measures.names import ContrastName

# Where neurons are counted as found.
FALSE_DISCOVERY_RATE = 0.05

# The histogram's bins: 16 in every octave of size between 2^-10 and 2^6, of either sign; one for what is smaller, the last for larger.
_STEPS, _LOWEST, _HIGHEST = 16, -10, 6
_PER_SIGN = _STEPS * (_HIGHEST - _LOWEST)
BINS = 2 * _PER_SIGN + 1
_SHIFT = 23 - 4  # of a float32's bits, what is left of the fraction is its first 4: 16 steps an octave
_LOWEST_BITS = int(torch.tensor(2.0**_LOWEST).view(torch.int32)) >> _SHIFT


_UNITS = {
    "difference": " (activation)", "welch_t": "", "cohens_d": " (standard deviations)", "auroc": " (probability)",
    "auroc_error": " (probability)", "p_value": "", "q_value": "",
}  # fmt: skip


class Contrast(NamedTuple):
    """Chosen against rejected transcripts, neuron by neuron. Positive, or over 0.5: higher in chosen ones.

    Attributes:
        difference: of the means.
        welch_t: Welch's t (Welch 1947), for sides of unequal variance.
        cohens_d: the difference in units of the pooled standard deviation (Cohen 1988).
        auroc: the probability that a chosen transcript's number exceeds a rejected one's, from a histogram.
        auroc_error: what the histogram's bins may have taken from it or added to it, at most.
        p_value: of Welch's t, two-sided. Transcripts of one prompt are taken as independent, which makes it too small where pairs of a
            prompt are many, and too large where chosen and rejected go up and down together.
        q_value: the false discovery rate at which the neuron would be found (Benjamini and Hochberg 1995), among all of them.
        chosen, rejected: different transcripts on each side.
    """

    difference: Float[Tensor, "layer neuron"]
    welch_t: Float[Tensor, "layer neuron"]
    cohens_d: Float[Tensor, "layer neuron"]
    auroc: Float[Tensor, "layer neuron"]
    auroc_error: Float[Tensor, "layer neuron"]
    p_value: Float[Tensor, "layer neuron"]
    q_value: Float[Tensor, "layer neuron"]
    chosen: int
    rejected: int

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron."""
        return frame(places(self.difference.shape) | self.columns())

    def columns(self) -> dict[str, Tensor]:
        """[layer, neuron] each, by their names in a table."""
        return {f"{name}{unit}": getattr(self, name) for name, unit in _UNITS.items()}

    def ranking(self, name: ContrastName) -> Float[Tensor, "layer neuron"]:
        """The size of a contrast, whatever its sign: higher ranks first."""
        return (getattr(self, name) - (0.5 if name == "auroc" else 0)).abs()


class ContrastSums:
    """Sums, sums of squares, and a histogram of each side; the memory does not grow with transcripts. They stay on the device until they
    are read. Call `begin` for each batch, then `update` for each layer.

    Args:
        sides: which rows are chosen (0) and rejected (1) in some pair; a row may be both. On the CPU.
        device: where the numbers of transcripts are.

    Raises:
        InputError: less than two transcripts on a side.
    """

    def __init__(self, n_layers: int, n_units: int, sides: Bool[Tensor, "side row"], device: torch.device | str = "cpu") -> None:
        self._sides, self._device = sides, device
        self._counts = [int(side.sum()) for side in sides]
        if min(self._counts) < 2:
            raise InputError(f"a contrast needs two or more transcripts on each side, got {self._counts[0]} and {self._counts[1]}")
        self._sum, self._square = (WideSums(2, n_layers, n_units, device=device) for _ in range(2))
        kind = torch.int16 if max(self._counts) < 2**15 else torch.int32
        self._histogram = torch.zeros(2, n_layers, n_units, BINS, dtype=kind, device=device)
        self._here: list[Int[Tensor, " row"]] = []  # of the batch, by side: which of its transcripts are of that side

    def begin(self, rows: Sequence[int]) -> None:
        """The rows that come next; each comes once."""
        self._here = [batch_tensor_on(side[list(rows)].nonzero()[:, 0], self._device) for side in self._sides]

    def update(self, layer: int, values: Float[Tensor, "row neuron"]) -> None:
        """Adds the numbers of the transcripts of a batch in one layer."""
        place = bin_of(values) + BINS * torch.arange(values.shape[1], device=values.device)
        for side, here in enumerate(self._here):
            x, at = wide(values.index_select(0, here)), place.index_select(0, here).flatten()
            self._sum.add((side, layer), x.sum(0))
            self._square.add((side, layer), x.square().sum(0))
            histogram = self._histogram[side, layer].view(-1)
            histogram.scatter_add_(0, at, torch.ones_like(at, dtype=histogram.dtype))

    def merge(self) -> None:
        """Adds up what all processes have."""
        self._sum.merge()
        self._square.merge()
        parallel.add_up(*self._histogram.flatten(0, 1))

    def result(self) -> Contrast:
        """A neuron that is the same in all transcripts has t and d of 0, and p of 1."""
        n = np.array(self._counts)[:, None, None]
        mean = self._sum.total().numpy() / n
        square = self._square.total().numpy() / n
        # What is left of equal numbers is rounding.
        variance = np.where(square - mean**2 > 1e-12 * square, square - mean**2, 0) * n / (n - 1)
        difference = mean[0] - mean[1]
        flat = variance.sum(0) == 0
        deviation = np.sqrt(np.where(flat, 1, variance))
        t, p = stats.ttest_ind_from_stats(mean[0], deviation[0], n[0], mean[1], deviation[1], n[1], equal_var=False)
        pooled = np.sqrt(np.where(flat, 1, ((n - 1) * variance).sum(0) / (n.sum() - 2)))
        p = np.where(flat, 1, p)
        auroc, error = self._auroc()
        q = stats.false_discovery_control(p.ravel()).reshape(p.shape)
        return Contrast(
            difference=_float(difference),
            welch_t=_float(np.where(flat, 0, t)),
            cohens_d=_float(np.where(flat, 0, difference / pooled)),
            auroc=auroc,
            auroc_error=error,
            p_value=_float(p),
            q_value=_float(q),
            chosen=self._counts[0],
            rejected=self._counts[1],
        )

    def _auroc(self) -> tuple[Tensor, Tensor]:
        auroc, error = (torch.zeros(self._histogram.shape[1:3], device=self._device) for _ in range(2))
        for layer in range(len(auroc)):
            p, q = (self._histogram[side, layer].to(widest(self._device)) / self._counts[side] for side in (0, 1))
            below = q.cumsum(1) - q
            auroc[layer] = (p * (below + q / 2)).sum(1)
            error[layer] = (p * q).sum(1) / 2
        return auroc.cpu(), error.cpu()


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def bin_of(x: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The bin of each number, in their order, from 0 to `BINS - 1`.

    >>> bin_of(torch.tensor([-100.0, -1.0, 0.0, 1.0, 1.07, 100.0])).tolist()
    [0, 95, 256, 417, 418, 512]
    """
    size = x.float().abs().contiguous()
    step = ((size.view(torch.int32) >> _SHIFT) - _LOWEST_BITS + 1).clamp(0, _PER_SIGN)
    return (torch.where(x < 0, -step, step) + _PER_SIGN).long()
