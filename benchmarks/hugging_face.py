"""Rewards by Hugging Face's own classifier, with length-sorted padding on the right: the peer of every benchmark."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tl_reward.data.encoding import Row

Rows = Sequence[Row]


class Padded(NamedTuple):
    """Some rows, filled up to one length: their places in the whole list, token ids and mask [row, pos]."""

    places: list[int]
    tokens: Tensor
    mask: Tensor


def padded(rows: Rows, batch_size: int, pad: int, length: int | None = None) -> Iterator[Padded]:
    """Batches sorted by length, padded on the right to their longest row, or to a fixed length in the given order."""
    order = list(range(len(rows))) if length else sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    for start in range(0, len(rows), batch_size):
        index = order[start : start + batch_size]
        yield filled(rows, index, pad, length or max(len(rows[i].ids) for i in index))


def of_tokens(rows: Rows, most: int, pad: int) -> Iterator[Padded]:
    """Batches of at most `most` tokens, padding included: what suits a GPU better than a number of rows."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    while order:
        longest = len(rows[order[0]].ids)
        count = max(1, most // longest)
        yield filled(rows, order[:count], pad, longest)
        order = order[count:]


def filled(rows: Rows, index: list[int], pad: int, length: int) -> Padded:
    tokens = torch.full((len(index), length), pad)
    mask = torch.zeros(len(index), length, dtype=torch.long)
    for at, i in enumerate(index):
        tokens[at, : len(rows[i].ids)] = torch.tensor(rows[i].ids)
        mask[at, : len(rows[i].ids)] = 1
    return Padded(index, tokens, mask)


@torch.inference_mode()
def rewards(model: PreTrainedModel, rows: Rows, batches: Iterator[Padded]) -> Tensor:
    """The reward of each row, read at its last token; one copy from the device at the end."""
    head: Any = model.score
    found, order = [], []
    for index, tokens, mask in batches:
        hidden = model.base_model(
            input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).last_hidden_state
        last = hidden[torch.arange(len(index), device=hidden.device), (mask.sum(1) - 1).to(hidden.device)]
        found.append(head(last)[:, 0].float())
        order += index
    return torch.cat(found).cpu()[torch.tensor(order).argsort()]
