"""What the first pass for examples keeps of shown neurons, so that the second one need not run the model; see `collect`."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.examples.passes import Details, Peaks, Task
from tl_reward.data.batches.packing import Batch
from tl_reward.sites import Site

KEPT_BYTES = 256 * 2**20


class Seen(NamedTuple):
    """A batch, and what shown neurons of each layer are at its tokens, float32."""

    batch: Batch
    values: dict[Site, Float[Tensor, "token _"]]


class Kept:
    """By the start of a chunk of pairs, what its batches showed. It keeps nothing where all of it would be more than `KEPT_BYTES`.

    Attributes:
        keeps: whether the second pass need not run the model, where the first one was not cut short.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._columns = task, task.columns()
        self.keeps = 4 * len(task.neurons) * sum(len(row.ids) for row in task.encoded.rows) <= KEPT_BYTES
        self._seen: dict[int, list[Seen]] = {}

    def beside(self, peaks: Peaks, start: int) -> "Peaks | KeepingPeaks":
        """The consumer of the first pass over a chunk."""
        return KeepingPeaks(peaks, self._columns, self._seen.setdefault(start, [])) if self.keeps else peaks

    @torch.inference_mode()
    def show(self, start: int, details: Details) -> bool:
        """Shows the second pass what was kept of a chunk, and lets it go. False where nothing was."""
        seen = self._seen.pop(start, None)
        for batch, values in seen or ():
            details.begin(batch)
            for site, value in values.items():
                whole = torch.zeros(len(value), int(self._task.model.cfg.d_mlp or 0), device=value.device)
                whole[:, self._columns[site.layer][0]] = value  # it looks for its columns among all
                details.layer(site, whole, None)
            details.end()
        return seen is not None


class KeepingPeaks:
    """The first pass, which also notes what shown neurons are."""

    def __init__(self, peaks: Peaks, columns: dict[int, tuple[Tensor, Tensor]], seen: list[Seen]) -> None:
        self._peaks, self._columns, self._seen = peaks, columns, seen

    def begin(self, batch: Batch) -> None:
        self._seen.append(Seen(batch, {}))
        self._peaks.begin(batch)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        if site.kind == self._peaks.task.site and site.layer in self._columns:
            self._seen[-1].values[site] = activation[:, self._columns[site.layer][0]].float()
        self._peaks.layer(site, activation, base)

    def end(self) -> None:
        self._peaks.end()

    def merge(self) -> None:
        self._peaks.merge()
