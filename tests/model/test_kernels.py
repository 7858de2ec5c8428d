"""Every kernel of a packed batch gives what attention is by definition, written out here; on a GPU one call serves a whole batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tl_reward.data.encoding import Row
from tl_reward.data.packing import PackedBatch, pack
from tl_reward.model.layers import kernels
from tl_reward.model.layers.kernels import Scoring

# Prefixes of prefixes, a prefix in three pieces, a transcript of one token, and one that shares nothing.
IDS = [
    (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 5, 6, 7, 8, 3, 3), (1, 2, 3, 4, 5, 9, 9), (1, 2, 3, 8, 8, 8, 8, 8, 8, 8, 8),
    (1, 2, 3, 8, 8, 9), (4,), (5, 5, 5, 5, 5, 5, 5, 5),
]  # fmt: skip
KERNELS: dict[str, Callable[..., Tensor]] = {
    "one by one": kernels._attend_one_by_one, "padded": kernels._attend_padded, "varlen": kernels._attend_varlen,
}  # fmt: skip


def batch() -> PackedBatch:
    (only,) = pack([Row(ids, 1) for ids in IDS], max_tokens=1000)
    assert max(map(len, only.spans)) == 3
    return only


def by_definition(q: Tensor, k: Tensor, v: Tensor, packed: PackedBatch, scoring: Scoring) -> Tensor:
    """Query by query and head by head."""
    result = torch.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for copy in range(q.shape[0]):
        for i, spans in enumerate(packed.spans):
            places = packed.places(i).tolist()
            for at in range(spans[-1].start, spans[-1].end):
                own = places.index(at)
                seen = places[max(0, own + 1 - (scoring.window or len(places))) : own + 1]
                for head in range(q.shape[2]):
                    scores = scoring.scale * (k[copy, seen, head // group] @ q[copy, at, head])
                    if scoring.cap > 0:
                        scores = scoring.cap * torch.tanh(scores / scoring.cap)
                    result[copy, at, head] = scores.softmax(0) @ v[copy, seen, head // group]
    return result


class StandIn:
    """What torch documents of varlen_attn, on a CPU, and how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
        *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        self.calls += 1
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size[1] == 0
        assert enable_gqa == (query.shape[1] != key.shape[1])
        assert int(cu_seq_q.diff().max()) <= max_q and int(cu_seq_k.diff().max()) <= max_k
        assert int(cu_seq_q[-1]) == len(query) and int(cu_seq_k[-1]) == len(key)
        parts = []
        for i in range(len(cu_seq_q) - 1):
            q, k, v = query[cu_seq_q[i] : cu_seq_q[i + 1]], key[cu_seq_k[i] : cu_seq_k[i + 1]], value[cu_seq_k[i] : cu_seq_k[i + 1]]
            distance = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
            allowed = (distance >= 0) & ((distance <= window_size[0]) if window_size[0] >= 0 else True)
            k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[2] ** -0.5 if scale is None else scale)
            parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~allowed, -torch.inf).softmax(-1), v))
        return torch.cat(parts)


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(kernels, "varlen_attn", stand_in)
    kernels._varlen_parameters.cache_clear()
    yield stand_in
    kernels._varlen_parameters.cache_clear()


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("window", [None, 3, 100])
# The table gives no capped scores to varlen.
@pytest.mark.parametrize(("name", "cap"), [(name, cap) for name in KERNELS for cap in (0.0, 2.0) if name != "varlen" or not cap])
def test_a_kernel_is_attention_by_definition(stand_in, name: str, cap: float, window: int | None, copies: int):
    packed, draw = batch(), torch.Generator().manual_seed(5)
    inputs = [torch.randn(copies, packed.tokens.shape[1], heads, 8, generator=draw) for heads in (4, 2, 2)]
    scoring, weight = Scoring(0.4, cap, window), torch.randn(copies, packed.tokens.shape[1], 4, 8, generator=draw)
    found = []
    for kernel in (KERNELS[name], by_definition):
        leaves = [x.clone().requires_grad_() for x in inputs]
        z = kernel(*leaves, packed, scoring)
        (z * weight).sum().backward()
        found.append([z.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert stand_in.calls == (name == "varlen")


def test_which_kernel_a_batch_takes():
    half, full = torch.bfloat16, torch.float32
    assert kernels.kernel_name(False, "cuda", half, 64, 0) == "rows"
    assert kernels.kernel_name(True, "cpu", half, 64, 0) == "one by one"
    assert {kernels.kernel_name(True, "cuda", dtype, 64, 0) for dtype in (half, torch.float16)} == {"varlen"}
    padded = [("cuda", full, 64, 0), ("cuda", half, 64, 50.0), ("cuda", half, 12, 0), ("cuda", half, 512, 0), ("mps", half, 64, 0)]
    assert {kernels.kernel_name(True, *case) for case in padded} == {"padded"}


def test_without_varlen_attention_a_gpu_fills_up(monkeypatch):
    monkeypatch.setattr(kernels, "varlen_attn", None)
    assert kernels.kernel_name(True, "cuda", torch.bfloat16, 64, 0) == "padded"


@pytest.mark.parametrize("fault", ["wrong numbers", "raises"])
def test_a_varlen_kernel_that_is_not_what_it_was_is_not_used(stand_in, monkeypatch, fault: str):
    def broken(*args: Any, **kwargs: Any) -> Tensor:
        if fault == "raises":
            raise TypeError("varlen_attn() got an unexpected keyword argument 'scale'")
        return stand_in(*args, **{**kwargs, "window_size": (1, 0)})

    kernels._varlen_works.cache_clear()
    assert kernels._varlen_works(torch.device("cpu"), torch.float32, 4, 2, 8, False)
    kernels._varlen_works.cache_clear()
    monkeypatch.setattr(kernels, "varlen_attn", broken)
    with pytest.warns(UserWarning, match="varlen_attn is not used"):
        assert not kernels._varlen_works(torch.device("cpu"), torch.float32, 4, 2, 8, False)
    kernels._varlen_works.cache_clear()


def test_an_earlier_torch_is_given_the_arguments_that_it_has(monkeypatch):
    def early(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, is_causal=False):
        raise NotImplementedError

    monkeypatch.setattr(kernels, "varlen_attn", early)
    kernels._varlen_parameters.cache_clear()
    q, k = torch.zeros(1, 3, 4, 16), torch.zeros(1, 3, 2, 16)
    assert kernels._varlen_options(q, k, Scoring(0.25, 0.0, None)) == {"is_causal": True}
    taken = [kernels._varlen_takes(scoring, 16) for scoring in (Scoring(0.25, 0, None), Scoring(0.2, 0, None), Scoring(0.25, 0, 4))]
    assert taken == [True, False, False]
    kernels._varlen_parameters.cache_clear()


@pytest.mark.parametrize("name", ["padded", "varlen"])
def test_a_batch_is_one_call_a_layer(tiny, stand_in, monkeypatch, name: str):
    """Rewards of a whole model, and their gradients, through the kernels of a GPU."""
    calls: list[str] = []

    def counted(*given: Any) -> Tensor:
        calls.append(name)
        return KERNELS[name](*given)

    packed = batch()
    inner = tiny.embed(packed.tokens).detach()
    found = []
    for kind in ("one by one", name):
        monkeypatch.setattr(kernels, "kernel_name", lambda *_, kind=kind: kind)
        monkeypatch.setattr(kernels, "_varlen_works", lambda *_: True)
        monkeypatch.setitem(kernels._KERNELS, name, counted)
        leaf = inner.clone().requires_grad_()
        reward = tiny(leaf, attention_mask=packed, start_at_layer=0)
        reward.sum().backward()
        found.append((reward.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
    assert len(calls) == tiny.cfg.n_layers
