"""The same work, done with the tools that a researcher would otherwise use. Nothing here is tuned against them.

Each function takes rows of token ids and gives what ours gives, so that the benchmark can check that it measures the same thing.
"""

from typing import Any

import torch
from hugging_face import Rows, padded, rewards
from nnsight import NNsight
from torch import Tensor
from transformer_lens import HookedTransformer
from transformers import PreTrainedModel

from tl_reward.measures.names import StatisticName
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet


def hugging_face(model: PreTrainedModel, rows: Rows, batch_size: int) -> Tensor:
    """`AutoModelForSequenceClassification` with length-sorted dynamic padding."""
    return rewards(model, rows, padded(rows, batch_size, model.config.pad_token_id))


@torch.no_grad()
def pruned(model: PreTrainedModel, rows: Rows, batch_size: int, neurons: NeuronSet) -> Tensor:
    """The rewards with some neurons' output weights set to 0, and set back: what ablation has to give."""
    weights = {layer: model.model.layers[layer].mlp.down_proj.weight for layer in neurons.by_layer()}
    kept = {layer: weight.clone() for layer, weight in weights.items()}
    for layer, index in neurons.by_layer().items():
        weights[layer][:, index] = 0
    try:
        return hugging_face(model, rows, batch_size)
    finally:
        for layer, weight in kept.items():
            weights[layer].copy_(weight)


def gradient_times_activation(model: PreTrainedModel, chosen: Rows, rejected: Rows) -> Tensor:
    """[layer, neuron]: activation times gradient of the mean margin, summed over tokens, one transcript at a time."""
    head: Any = model.score
    layers = [layer.mlp.down_proj for layer in model.model.layers]
    total = torch.zeros(len(layers), model.config.intermediate_size)
    for sign, rows in ((1, chosen), (-1, rejected)):
        for row in rows:
            kept: list[Tensor] = []
            handles = [layer.register_forward_pre_hook(lambda _m, inputs, kept=kept: kept.append(inputs[0])) for layer in layers]
            embedded = model.get_input_embeddings()(torch.tensor([row.ids])).detach().requires_grad_()
            try:
                reward = head(model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state)[0, -1, 0]
            finally:
                for handle in handles:
                    handle.remove()
            gradients = torch.autograd.grad(reward, kept)
            total += sign / len(chosen) * torch.stack([(a * g).sum((0, 1)).detach() for a, g in zip(kept, gradients, strict=True)])
    return total


def plain_transformer_lens(model: HookedRewardModel) -> HookedTransformer:
    """TransformerLens' own class and components with the weights of ours, in the memory layout that it makes itself."""
    plain = HookedTransformer(model.cfg)
    state = {name.replace("act_fn.", ""): value for name, value in model.state_dict().items()}
    plain.load_state_dict(state, strict=False)
    return plain.eval().requires_grad_(False)


@torch.inference_mode()
def transformer_lens(model: HookedTransformer, rows: Rows, batch_size: int, hook_name: str) -> tuple[Tensor, list[Tensor]]:
    """Rewards, and one site with `run_with_cache`."""
    found, kept = torch.zeros(len(rows)), []
    for index, tokens, mask in padded(rows, batch_size, 0):
        run: Any = model.run_with_cache(tokens, attention_mask=mask, names_filter=[hook_name], padding_side="right")
        logits, cache = run
        found[index] = logits[torch.arange(len(index)), mask.sum(1) - 1, 0].float()
        kept.append(cache[hook_name])
    return found, kept


@torch.inference_mode()
def nnsight(model: NNsight, rows: Rows, batch_size: int, layer: int) -> tuple[Tensor, list[Tensor]]:
    """Rewards, and what enters one layer's down projection."""
    found, kept = torch.zeros(len(rows)), []
    for index, tokens, mask in padded(rows, batch_size, model.config.pad_token_id):
        with model.trace(input_ids=tokens, attention_mask=mask, use_cache=False):
            activation = model.model.layers[layer].mlp.down_proj.input.save()
            logits = model.output.logits.save()
        found[index] = logits[:, 0].float()  # pyright: ignore[reportPossiblyUnboundVariable] - nnsight always runs the block
        kept.append(activation)  # pyright: ignore[reportPossiblyUnboundVariable] - as above
    return found, kept


@torch.inference_mode()
def study(model: PreTrainedModel, base: PreTrainedModel, chosen: Rows, rejected: Rows, batch_size: int) -> dict[StatisticName, Tensor]:
    """Neuron scores as arXiv 2606.13209 describes them: a pass for each score, every transcript padded to 1,024 tokens.

    Magnitude (mean), probability and change (root mean square against the base model), of the activation module's output, over the real
    tokens of chosen and of rejected transcripts, averaged. Each layer's activations are taken by a forward hook.
    """
    layers = len(model.model.layers)
    scores: dict[StatisticName, Tensor] = {}
    names: tuple[StatisticName, ...] = ("mean", "probability", "change")
    for name in names:
        sides = []
        for rows in (chosen, rejected):
            total, count = torch.zeros(layers, model.config.intermediate_size, dtype=torch.float64), 0
            for _, tokens, mask in padded(rows, batch_size, model.config.pad_token_id, length=1024):
                activation = _activations(model, tokens, mask)
                other = _activations(base, tokens, mask) if name == "change" else []
                real = mask.bool()
                for layer in range(layers):
                    x = activation[layer][real].float()
                    if name == "probability":
                        x = (x > 0).float()
                    elif name == "change":
                        x = (x - other[layer][real].float()).square()
                    total[layer] += x.sum(0).double()
                count += int(mask.sum())
            sides.append((total / count).sqrt() if name == "change" else total / count)
        scores[name] = ((sides[0] + sides[1]) / 2).float()
    return scores


def _activations(model: PreTrainedModel, tokens: Tensor, mask: Tensor) -> list[Tensor]:
    kept: list[Tensor] = []
    handles = [layer.mlp.act_fn.register_forward_hook(lambda _m, _i, output: kept.append(output)) for layer in model.model.layers]
    try:
        model(input_ids=tokens, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept
