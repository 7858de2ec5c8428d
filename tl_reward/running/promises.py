"""Is an edit of each token by itself, as it says? Where it is not, transcripts that share a batch would change each other's rewards."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.data.batches.packing import Batch, pack
from tl_reward.data.batches.padding import batches
from tl_reward.data.encoding import EncodedPairs
from tl_reward.errors import InputError
from tl_reward.interventions.attaching import edited
from tl_reward.interventions.from_functions import FunctionIntervention
from tl_reward.interventions.user_code import defined_at
from tl_reward.model.layer_by_layer import mask_of
from tl_reward.model.reward_model import HookedRewardModel

_tried: WeakKeyDictionary[HookedRewardModel, WeakSet[FunctionIntervention]] = WeakKeyDictionary()


def check_per_token(model: HookedRewardModel, encoded: EncodedPairs, interventions: Sequence[Any]) -> None:
    """Runs the two shortest transcripts together and apart under each function that says `per_token`, once for a model. It cannot prove the
    promise, but a mean over tokens, or an index of them, breaks it here.

    Raises:
        InputError: the rewards differ by more than rounding.
    """
    known = _tried.setdefault(model, WeakSet())
    new = [each for each in interventions if isinstance(each, FunctionIntervention) and each.per_token and each not in known]
    rows = sorted(encoded.rows, key=lambda row: (len(row.ids), row))[:2]
    if not new or len(rows) < 2:
        return
    together = list(pack(rows, max_tokens=sum(len(row.ids) for row in rows)))
    apart = list(batches(rows, max_tokens=2 * max(len(row.ids) for row in rows)))  # a row each, since an edit may look across rows too
    noise = (_rewards(model, together, []) - _rewards(model, apart, [])).abs().max()
    for each in new:
        one, other = _rewards(model, together, [each]), _rewards(model, apart, [each])
        allowed = 4 * noise + (1e-3 if model.cfg.dtype == torch.float32 else 5e-2) * (1 + other.abs())
        if ((one - other).abs() > allowed).any():
            shown = ", ".join(f"{a:.4g} and {b:.4g}" for a, b in zip(one.tolist(), other.tolist(), strict=True))
            name = getattr(each.function, "__name__", "an edit")
            raise InputError(
                f"{name} ({defined_at(each.function)}) says per_token=True, and what it does to a token depends on others: two transcripts "
                f"have rewards {shown} in one batch and apart; leave per_token out"
            )
        known.add(each)


def _rewards(model: HookedRewardModel, made: Sequence[Batch], interventions: Sequence[Any]) -> Float[Tensor, " row"]:
    found: dict[int, float] = {}
    for each in made:
        batch = each.to(model.W_U.device)
        with torch.inference_mode(), edited(model, batch, interventions):
            rewards = model(batch.tokens, attention_mask=mask_of(batch)).flatten().double().tolist()
        found |= dict(zip(batch.row.tolist(), rewards, strict=True))
    return torch.tensor([found[row] for row in sorted(found)])
