"""Gates of neurons as an edit of weights: what an exported model needs, so that it runs without a hook."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.interventions.gates import Gates, check_gates
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.sites import unit_shape


@torch.inference_mode(False)  # else a copy that was made in inference mode could take no gradient
def with_gates(model: HookedRewardModel, gates: Float[Tensor, "layer neuron"]) -> HookedRewardModel:
    """A copy of the model in which each neuron writes its gate times what it wrote: the rows of the MLP's output weights are multiplied.

    The product `post @ W_out` is linear in the neuron, and what follows it, a bias or a norm, is left as it is: so the edit is exact
    for every architecture here, up to the rounding of the weights' own precision.

    Args:
        gates: finite, at least 0; 1 leaves a neuron as it is.

    Raises:
        InputError: gates of another shape; output weights that other weights share (`check_foldable`), or that are too large for their
            own precision when they are multiplied.
    """
    check_gates(gates)
    shape = unit_shape(model.cfg, Gates.site)
    if tuple(gates.shape) != shape:
        raise InputError(f"gates must have the model's shape {list(shape)}, got {list(gates.shape)}")
    check_foldable(model)
    copy = deepcopy(model)
    with torch.no_grad():
        for layer, (block, gate) in enumerate(zip(copy.blocks, gates, strict=True)):
            weight = block.mlp.W_out
            wide = torch.promote_types(weight.dtype, torch.float32)
            gated = (weight.to(wide) * gate.to(weight.device, wide)[:, None]).to(weight.dtype)
            if bool((weight.isfinite() & ~gated.isfinite()).any()):
                precision = str(weight.dtype).removeprefix("torch.")
                raise InputError(
                    f"a gate of layer {layer}, at most {float(gate.max()):g}, makes an output weight too large for {precision}"
                )
            weight.copy_(gated)
    return copy


def check_foldable(model: HookedRewardModel) -> None:
    """Raises InputError where several weights are one in memory, of which one is an MLP's output: a gate of one layer would edit others."""
    first: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):  # a tied weight has several names
        other = first.setdefault(weight.data_ptr(), name) if weight.data_ptr() else name  # none where a model is of shapes alone
        if other != name and "mlp.W_out" in name + other:
            raise InputError(f"{other} and {name} are one weight: a gate of a neuron of one cannot be folded into it without the other")
