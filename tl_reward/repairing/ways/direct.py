"""How much each neuron itself writes along the reward direction, for or against the margin, whatever later layers make of it."""

from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.attribution import Attribution, PromptSums, weights_of
from tl_reward.analyses.direct_attribution import read_at_end, wider_than, written_by_neurons
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import pair_hash
from tl_reward.model.heads.chosen import check_direction, output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import stream
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.gradients import sign_of_rows
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site, unit_shape


@checked
def direct_effects(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    weights: Sequence[float] | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Attribution:
    """Direct reward attribution of every neuron at the read-out (`direct_attribution`), as an effect on the margin with its standard error.

    Args:
        weights: as in `attribute`.

    Raises:
        InputError: as `attribute` and `stream`; the reward is along no single direction.
    """
    check_direction(model)
    encoded = encode_for(model, pairs, **options)
    of_pairs = weights_of(weights, encoded)
    sums = _Written(model, encoded, of_pairs)
    stream(model, encoded, sums.sites, sums, whole=True, progress=progress, **options)
    effect, error = sums.of_prompts.mean().float(), sums.of_prompts.standard_error().float()
    hashes = tuple(pair_hash(pair) for pair in encoded.pairs)
    return Attribution(effect, error, hashes, sums.of_prompts.prompts, encoded.reading, output_name(model))


class _Written:
    """What neurons write at the end of each transcript, times how the margins depend on its reward, summed by prompt."""

    def __init__(self, model: HookedRewardModel, encoded: EncodedPairs, weights: Float[Tensor, " pair"]) -> None:
        self._model, device = model, model.W_U.device
        shape = unit_shape(model.cfg, "mlp_post")
        self.of_prompts = PromptSums(encoded, shape, 1, device, weights)
        self._sign = sign_of_rows(encoded, weights).to(device)
        self._neurons = [Site(layer, "mlp_post") for layer in range(shape.layers)]
        self._last = Site(shape.layers - 1, "resid_post")
        self.sites = [*self._neurons, self._last]
        self._here = self._at_end = torch.empty(0)  # of the batch: the sign of each row, and where its last token is
        self._tokens = 0
        self._seen: dict[Site, Tensor] = {}

    def begin(self, batch: Batch) -> None:
        self.of_prompts.begin(batch)
        self._here = self._sign[batch.row]
        self._at_end = batch_tensor_on(torch.tensor([spans[-1][1] - 1 for spans in batch.spans]), batch.row.device)

    def layer(self, site: Site, activation: Float[Tensor, "token unit"], base: Tensor | None) -> None:
        self._tokens = len(activation)
        self._seen[site] = activation.index_select(0, self._at_end).to(wider_than(self._model))

    def end(self) -> None:
        direction = read_at_end(self._model, self._seen[self._last]).direction
        for site in self._neurons:
            written = written_by_neurons(self._model, site.layer, self._seen[site], direction)
            effect = written.new_zeros(self._tokens, written.shape[1]).index_add(0, self._at_end, written * self._here.to(written)[:, None])
            self.of_prompts.layer(site, effect, torch.ones_like(effect))
        self.of_prompts.end()
        self._seen.clear()

    def merge(self) -> None:
        self.of_prompts.merge()
