"""Gates learnt by gradient: every weight of the model is frozen, and few gates move."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.encoding import EncodedPairs
from tl_reward.errors import InputError
from tl_reward.interventions.attaching import attached, edited
from tl_reward.interventions.gates import multiplied_by
from tl_reward.model.layer_by_layer import mask_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.ways.matching import HIGHEST
from tl_reward.running.batches.batching import Grouping, Pairs, batches_for, encode_for, interventions_of
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site, unit_shape
from tl_reward.terminal.progress import Progress

MOMENTUM = 0.9


@checked
@torch.inference_mode(False)  # a notebook may have switched gradients off
@torch.enable_grad()
def learnt_gates(
    model: HookedRewardModel,
    pairs: Pairs,
    unit: float,
    *,
    config: RepairConfig = RepairConfig(),
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Float[Tensor, "layer neuron"]:
    """Gates that lower the Bradley-Terry loss of all objectives together, each with the same weight, with every weight frozen.

    Args:
        pairs: each with its objective.
        unit: reward units that count as 1 in the loss, such as the standard deviation of the model's rewards.

    Raises:
        InputError: a loss that is not finite; several processes run.
    """
    parallel.require_one("learning gates")
    encoded = encode_for(model, pairs, gradients=True, **options).apart()
    shape = unit_shape(model.cfg, "mlp_post")
    gates = torch.ones(*shape, device=model.cfg.device, requires_grad=True)
    mean = torch.zeros_like(gates)  # of gradients, a moving one
    names = [Site(layer, "mlp_post").hook_name for layer in range(shape.layers)]
    with Progress(progress, config.learn_steps, "steps") as shown:
        for step, chosen in enumerate(_steps(encoded, config)):
            part = encoded.take(chosen).apart()
            weights = _weights(part)
            gradient = torch.zeros_like(gates)
            grouping = Grouping(part.pair_of_row, whole=True)
            for batch in batches_for([model], part, options, gradients=True, grouping=grouping).batches:
                here = batch.to(model.W_U.device)
                hooks = [(name, multiplied_by(gate)) for name, gate in zip(names, gates, strict=True)]
                with edited(model, here, interventions_of(options)), attached(model, hooks):
                    rewards = model(here.tokens, attention_mask=mask_of(here))
                    loss = _loss(rewards, here.row, weights.to(rewards), unit)
                    gradient += torch.autograd.grad(loss, [gates])[0]
            if not gradient.isfinite().all():
                raise InputError(f"{model.cfg.model_name}: the loss of gates is not finite at pairs such as {part.pairs[0].id}")
            mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
            with torch.no_grad():
                gates.copy_(_moved(gates, mean, config.learning_rate * (1 - step / config.learn_steps), config.sparsity))
            shown.add(1)
    return gates.detach().cpu()


def _moved(gates: Tensor, gradient: Tensor, rate: float, sparsity: float) -> Tensor:
    """A proximal step of gradient descent: the gate of the largest gradient moves by `rate`, others by their share of that; then all are
    drawn back towards 1 by `sparsity` of it, so that a gate of a smaller gradient stays at 1 (Beck and Teboulle 2009)."""
    free = ~(((gates <= 0) & (gradient > 0)) | ((gates >= HIGHEST) & (gradient < 0)))
    largest = (gradient.abs() * free).max()
    if largest == 0:
        return gates
    return (1 + F.softshrink(gates - 1 - rate * gradient / largest, float(rate * sparsity))).clamp(0, HIGHEST)


def _loss(rewards: Float[Tensor, " row"], row: Tensor, weights: Float[Tensor, " pair"], unit: float) -> Tensor:
    """Minus the logarithm of the probability that chosen is preferred, weighted. Rows 2i and 2i + 1 are the sides of pair i."""
    order = row.argsort()
    chosen, rejected = rewards[order].view(-1, 2).T
    return (F.softplus((rejected - chosen) / unit) * weights[row[order][::2] // 2]).sum()


def _weights(part: EncodedPairs) -> Float[Tensor, " pair"]:
    """That make the loss a mean over objectives of the mean over their pairs."""
    counts: Mapping[Any, int] = {
        name: sum(pair.objective == name for pair in part.pairs) for name in {each.objective for each in part.pairs}
    }
    return torch.tensor([1 / (len(counts) * counts[pair.objective]) for pair in part.pairs])


def _steps(encoded: EncodedPairs, config: RepairConfig) -> Iterator[Sequence[int]]:
    """The pairs of each step: of every objective as many, each objective's in an order of its own that begins anew when it is through."""
    by_objective: dict[Any, list[int]] = {}
    for i, pair in enumerate(encoded.pairs):
        by_objective.setdefault(pair.objective, []).append(i)
    count = max(1, config.pairs_a_step // len(by_objective))
    turns = [_in_turn(by_objective[name], config.seed) for name in sorted(by_objective, key=str)]
    for _ in range(config.learn_steps):
        yield sorted({next(turn) for turn in turns for _ in range(count)})


def _in_turn(items: Sequence[int], seed: int) -> Iterator[int]:
    generator = random.Random(seed)
    while True:
        order = list(items)
        generator.shuffle(order)
        yield from order
