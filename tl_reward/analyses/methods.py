"""The ways to estimate every neuron's effect on the margin, by name, so that one run can compare them."""

from typing import Unpack

import torch

from tl_reward.analyses.attribution import Attribution, attribute
from tl_reward.analyses.direct_attribution import direct_attribution
from tl_reward.analyses.discovery import discover
from tl_reward.errors import InputError
from tl_reward.measures.names import Method, check_method
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.budget import RunOptions
from tl_reward.running.scoring import Pairs, encode_for
from tl_reward.sites import UnitSite

STEPS = 8


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
        method: one of `rankings.METHODS`.
        steps: of "integrated".

    Raises:
        InputError: an unknown method; "mean" for heads, whose mean is a vector (`attribute` takes it as its baseline).
    """
    check_method(method)
    encoded = encode_for(model, pairs, **options)
    if method == "gradient":
        return attribute(model, encoded, site=site, progress=progress, **options)
    if method == "integrated":
        return attribute(model, encoded, site=site, steps=steps, progress=progress, **options)
    if method == "pair":
        return attribute(model, encoded, site=site, baseline="pair", progress=progress, **options)
    if method == "mean":
        if site == "attn_z":
            raise InputError("method mean is for neurons; for heads choose gradient, integrated, pair or direct")
        mean = discover(model, encoded, sites=(site,), **options).ranking("mean", site)
        return attribute(model, encoded, site=site, baseline=mean, progress=progress, **options)
    found = direct_attribution(model, encoded, progress=progress, **options)
    by_side = found.head if site == "attn_z" else found.neuron
    effect = by_side[0] - by_side[1]
    return Attribution(effect, torch.full_like(effect, torch.inf), found.pairs, len(set(encoded.prompts)))
