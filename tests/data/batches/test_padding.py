"""Padded batches give what a loop over their rows gives, and find their real tokens once."""

import pytest
import torch

from tl_reward.data.batches.padding import TokenBatch, batches
from tl_reward.data.encoding import Row

LENGTHS = (5, 3, 3, 1)


@pytest.fixture
def batch() -> TokenBatch:
    (only,) = batches([Row(tuple(range(length)), 0) for length in LENGTHS], max_tokens=100)
    return only


def test_flat_is_the_real_tokens_row_after_row(batch: TokenBatch):
    activation = torch.randn(4, 5, 2, requires_grad=True)
    flat = batch.flat(activation)
    assert flat.equal(torch.cat([activation[i, :length] for i, length in enumerate(LENGTHS)]))
    for i, length in enumerate(LENGTHS):
        assert flat[batch.places(i)].equal(activation[i, :length])
    weight = torch.randn(3, 4)
    assert batch.occurrences(weight).equal(torch.cat([weight[:, i, None].expand(3, n) for i, n in enumerate(LENGTHS)], dim=1))


def test_where_the_real_tokens_are_is_known_without_asking(batch: TokenBatch, monkeypatch):
    asked, nonzero = [], torch.Tensor.nonzero
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda x: asked.append(x) or nonzero(x))
    with torch.inference_mode():
        for _ in range(3):
            batch.flat(torch.randn(4, 5))
    # And what was found without gradients is good for them.
    batch.flat(torch.randn(4, 5, requires_grad=True)).sum().backward()
    assert asked == []
