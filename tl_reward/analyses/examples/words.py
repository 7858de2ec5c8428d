"""What a neuron's weights say by themselves: the words that it reads and writes, and the neurons that write in its direction."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet

WORDS, NEIGHBOURS = 10, 5
CHUNK = 1024  # words at a time: a few thousand no longer fit a CPU's cache, and take three times as long


class Words(NamedTuple):
    """Of each neuron, vocabulary tokens, the strongest first, with their text and what they do. A vocabulary of less than `WORDS` tokens
    gives fewer."""

    token: Int[Tensor, "shown word"]
    text: list[list[str]]
    value: Float[Tensor, "shown word"]


class WordsOut(NamedTuple):
    """The words whose logit a neuron raises most, and those that it lowers most, per unit of its activation."""

    raised: Words
    lowered: Words


class Neighbours(NamedTuple):
    """Of each neuron, the (layer, neuron) of others, the largest |value| first, and the values."""

    neuron: Int[Tensor, "shown neighbour 2"]
    value: Float[Tensor, "shown neighbour"]


def read_by(model: HookedRewardModel) -> Literal["gate", "in"]:
    """Which weights `words_in` is of: those into the activation function, the gate's in a gated MLP."""
    return "gate" if model.cfg.gated_mlp else "in"


@torch.inference_mode()
def words_in(model: HookedRewardModel, neurons: NeuronSet) -> Words:
    """The words with the largest pre-activation of each neuron: the embedding, through the norm before that layer's MLP, times the weights
    into the activation function, plus their bias.

    Neglected: all that the layers before the neuron write, and the position's embedding (GPT-2). Where no norm precedes the MLP (OLMo-2),
    the embedding is taken as it is.
    """
    embedding = model.embed.W_E
    found = []
    for layer, index in neurons.by_layer().items():
        block: Any = model.blocks[layer]
        into = block.mlp.W_gate if model.cfg.gated_mlp else block.mlp.W_in
        weight = into[:, index.to(into.device)].float()
        bias = 0.0 if model.cfg.gated_mlp else block.mlp.b_in[index.to(into.device)].float()

        def pre(part: slice, block: Any = block, weight: Tensor = weight, bias: Any = bias) -> Tensor:
            words = embedding[part] if block.post_norm else block.ln2(embedding[None, part])[0]
            return (words.float() @ weight + bias).T

        found.append(_largest(pre, len(embedding)))
    if not found:
        return Words(torch.empty(0, WORDS, dtype=torch.long), [], torch.empty(0, WORDS))
    return _words(model, [torch.cat(parts) for parts in zip(*found, strict=True)])


@torch.inference_mode()
def words_out(model: HookedRewardModel, neurons: NeuronSet, unembedding: Float[Tensor, "d_model vocab"]) -> WordsOut:
    """The words whose logits each neuron moves most in the base language model, by what it `writes`.

    Neglected: the scale of the final norm, which is the same for all words, and all later layers that read the neuron. Values are in
    logits per unit of activation at a final norm scale of 1.

    Args:
        unembedding: with the final norm folded in, as `checkpoints.load_unembedding` gives it.
    """
    written = _written(model, neurons)
    if len(unembedding) != written.shape[1]:
        raise InputError(f"the unembedding must be of the model's width, {written.shape[1]}, got {len(unembedding)}: another base model's?")

    def logits(part: slice) -> Tensor:
        return written @ unembedding[:, part].to(written)

    count = unembedding.shape[1]
    token, value = _largest(lambda part: -logits(part), count)
    return WordsOut(raised=_words(model, _largest(logits, count)), lowered=_words(model, (token, -value)))


@torch.inference_mode()
def cosine_neighbours(model: HookedRewardModel, neurons: NeuronSet) -> Neighbours:
    """The other neurons of the whole model that write in the most similar, or the most opposite direction: the largest |cosine|."""
    own = torch.nn.functional.normalize(_written(model, neurons), dim=1)
    values, places = [], []
    for layer in range(model.cfg.n_layers):
        cosine = own @ torch.nn.functional.normalize(writes(model, layer), dim=1).T
        for i, (of, neuron) in enumerate(neurons):
            if of == layer:
                cosine[i, neuron] = 0
        best = cosine.abs().topk(NEIGHBOURS, dim=1).indices
        values.append(cosine.gather(1, best))
        places.append(torch.stack([torch.full_like(best, layer), best], dim=2))
    value, place = torch.cat(values, 1), torch.cat(places, 1)
    order = value.abs().sort(dim=1, descending=True, stable=True).indices[:, :NEIGHBOURS]
    return Neighbours(place.gather(1, order[:, :, None].expand(-1, -1, 2)).cpu(), value.gather(1, order).clamp(-1, 1).cpu())


def writes(model: HookedRewardModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """What each neuron of a layer writes into the residual stream per unit of activation, float32: its row of W_out.

    A norm that follows the MLP (Gemma-2, OLMo-2) has its weights in it; its scale, which all neurons of the layer share, is neglected.
    """
    block = model.blocks[layer]
    norm = block.output_norms().mlp
    return block.mlp.W_out.float() if norm is None else block.mlp.W_out.float() * norm.w.float()


def _written(model: HookedRewardModel, neurons: NeuronSet) -> Float[Tensor, "shown d_model"]:
    rows = [writes(model, layer)[index.to(model.W_U.device)] for layer, index in neurons.by_layer().items()]
    return torch.cat(rows) if rows else model.W_U.new_empty(0, model.cfg.d_model).float()


def _largest(values: Callable[[slice], Tensor], count: int) -> tuple[Int[Tensor, "shown word"], Float[Tensor, "shown word"]]:
    """The words with the largest of `values` [shown, word], which are asked for a few words at a time."""
    tokens, best = [], []
    for start in range(0, count, CHUNK):
        here = values(slice(start, start + CHUNK))
        top = here.topk(min(WORDS, here.shape[1]), dim=1)
        tokens.append(top.indices + start)
        best.append(top.values)
    token, value = torch.cat(tokens, 1), torch.cat(best, 1)
    order = value.sort(dim=1, descending=True, stable=True).indices[:, :WORDS]
    return token.gather(1, order), value.gather(1, order)


def _words(model: HookedRewardModel, found: Any) -> Words:
    token, value = (part.cpu() for part in found)
    texts = {i: token_text(i, model.tokenizer) for i in token.unique().tolist()}
    return Words(token, [[texts[i] for i in row] for row in token.tolist()], value)


def token_text(token: int, tokenizer: Any) -> str:
    """The text of a vocabulary token; its number in brackets where the tokenizer has none: embeddings are often padded with rows."""
    if tokenizer is None or token >= len(tokenizer):
        return f"[{token}]"
    return tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
