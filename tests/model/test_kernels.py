"""Every kernel of a packed batch gives what attention is by definition, written out here; on a GPU one call serves a whole batch."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tl_reward.data.batches import layouts
from tl_reward.data.batches.packing import PackedBatch, pack
from tl_reward.data.encoding import Row
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
    only = packed(IDS)
    assert max(map(len, only.spans)) == 3
    return only


def packed(ids: list[tuple[int, ...]]) -> PackedBatch:
    (only,) = pack([Row(each, 1) for each in ids], max_tokens=10**6)
    return only


def by_definition(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, scoring: Scoring) -> Tensor:
    """Query by query and head by head."""
    result = torch.zeros_like(q)
    group = q.shape[2] // k.shape[2]
    for copy in range(q.shape[0]):
        for i, spans in enumerate(batch.spans):
            places = batch.places(i).tolist()
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
def stand_in(monkeypatch) -> Iterator[StandIn]:
    stand_in = StandIn()
    monkeypatch.setattr(kernels, "varlen_attn", stand_in)
    kernels._varlen_parameters.cache_clear()
    yield stand_in
    kernels._varlen_parameters.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("window", [None, 3, 100])
# The table gives no capped scores to varlen.
@pytest.mark.parametrize(("name", "cap"), [(name, cap) for name in KERNELS for cap in (0.0, 2.0) if name != "varlen" or not cap])
def test_a_kernel_is_attention_by_definition(stand_in, name: str, cap: float, window: int | None, copies: int, dtype: torch.dtype):
    check(KERNELS[name], batch(), Scoring(0.4, cap, window), copies=copies, dtype=dtype)
    assert stand_in.calls == (name == "varlen")


def check(kernel: Callable[..., Tensor], batch: PackedBatch, scoring: Scoring, copies: int = 1, dtype: torch.dtype = torch.float64) -> None:
    """Output and gradients, with two heads of queries to one of keys."""
    draw = torch.Generator().manual_seed(5)
    inputs = [torch.randn(copies, batch.tokens.shape[1], heads, 8, generator=draw).to(dtype) for heads in (4, 2, 2)]
    weight = torch.randn(copies, batch.tokens.shape[1], 4, 8, generator=draw).to(dtype)
    found = []
    for each in (kernel, by_definition):
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        z = each(q, k, v, batch, scoring)
        (z * weight).sum().backward()
        found.append([z.detach(), q.grad, k.grad, v.grad])
    most = 1e-5 if dtype == torch.float32 else 1e-12
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=most, rtol=most)


@pytest.mark.parametrize("name", ["padded", "varlen"])
@pytest.mark.parametrize("seed", range(4))
def test_any_lengths_and_prefixes(stand_in, name: str, seed: int):
    """Trees of prefixes drawn at random, which need several calls as often as not."""
    draw = random.Random(seed)
    ids = [tuple(draw.choices((1, 2), weights=(9, 1), k=draw.choice((1, 2, 3, 5, 8, 30)))) for _ in range(draw.randint(1, 12))]
    check(KERNELS[name], packed(sorted({*ids})), Scoring(0.4, 0.0, draw.choice((None, 2, 7))))


MANY_ANSWERS = [tuple(range(300)) + (1000 + i,) * 3 for i in range(200)]
ONE_LONG = [(7,) * 400, *((i, i, i) for i in range(1000, 1200))]


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("ids", [MANY_ANSWERS, ONE_LONG, IDS, [(1,)]])
def test_what_is_filled_up_is_bounded(ids, window: int | None, scores: bool):
    """Neither a prefix of many nor one long transcript among short ones takes memory that grows with the square of the batch's tokens."""
    made = packed(ids)
    tokens, longest = made.tokens.shape[1], made.longest
    calls, token = made.layouts.padded(window, scores=scores)
    for queries, keys, allowed in calls:
        assert keys.numel() <= max(longest, layouts.MOST_KEYS * tokens)
        assert len(queries) == 1 or allowed.numel() <= tokens * longest * (1 if scores else layouts.MOST_KEYS)
    assert sum(len(queries) for queries, *_ in calls) == len(ids) and len(token.unique()) == tokens
    for call in made.layouts.varlen(1):
        assert len(call.keys) <= max(longest, layouts.MOST_KEYS * tokens)
    # The calls are few: what they hold, over what one may hold.
    keys = sum(map(len, ids))
    assert len(made.layouts.varlen(1)) <= 1 + 2 * keys / (layouts.MOST_KEYS * tokens)
    assert len(calls) <= 2 + 2 * keys / tokens


@pytest.mark.parametrize("name", ["padded", "varlen", "one by one"])
def test_a_value_that_is_not_finite_stays_in_its_transcript(stand_in, name: str):
    made = packed([(1, 2, 3), (4, 5), (6, 7, 8, 9)])
    inputs = [torch.randn(1, 9, heads, 8, generator=torch.Generator().manual_seed(1)) for heads in (4, 2, 2)]
    q, k, v = (x.index_fill(1, torch.tensor([0, 1, 2]), torch.nan).requires_grad_() for x in inputs)
    z = KERNELS[name](q, k, v, made, Scoring(0.4, 0.0, None))
    assert not z[:, :3].isfinite().any() and z[:, 3:].isfinite().all()
    z[:, 3:].sum().backward()
    assert all(grad is not None and grad[:, 3:].isfinite().all() for grad in (q.grad, k.grad, v.grad))


@pytest.mark.parametrize("name", ["padded", "varlen"])
def test_nothing_waits_for_the_device(stand_in, monkeypatch, name: str):
    """On torch's "meta" device there are no values, so that whoever asked for one would raise."""
    monkeypatch.setattr(kernels, "varlen_attn", lambda q, k, v, *_, **__: q + k.sum() + v.sum())
    made = batch().to("meta")
    q, k, v = (torch.zeros(2, made.tokens.shape[1], heads, 8, device="meta", requires_grad=True) for heads in (4, 2, 2))
    z = KERNELS[name](q, k, v, made, Scoring(0.4, 0.0, 3))
    z.sum().backward()
    assert z.shape == q.shape and q.grad is not None and q.grad.shape == q.shape
    assert made.occurrences(torch.zeros(3, len(IDS), device="meta")).shape == (3, made.tokens.shape[1])
    assert made.at("readout").shape == made.at("response").shape == made.tokens.shape


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpus_kernel_that_knows_no_groups_is_not_given_any(monkeypatch, masked: bool, dtype: torch.dtype):
    """torch would fall back to one that holds every score."""
    given: list[Any] = []

    def sdpa(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        given.append((k.shape[1], options["enable_gqa"]))
        return torch.empty_like(q)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", sdpa)
    q, k = (torch.zeros(1, 5, heads, 8, device="meta", dtype=dtype) for heads in (4, 2))
    mask = torch.ones(1, 5, device="meta") if masked else None
    kernels._attend_rows(q, k, k, mask, Scoring(0.4, 0.0, None))
    assert given == [(2, True) if dtype == torch.bfloat16 and not masked else (4, False)]


def test_cudnn_plans_nothing():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with kernels._without_plans("cuda"):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    assert isinstance(kernels._without_plans("cpu"), nullcontext)


@pytest.mark.parametrize("name", ["rows", "padded", "varlen"])
def test_every_call_on_a_gpu_is_without_plans(stand_in, monkeypatch, name: str):
    inside: list[str] = []
    seen: list[bool] = []

    @contextmanager
    def without_plans(device: str) -> Iterator[None]:
        inside.append(device)
        yield
        inside.clear()

    def recorded(before: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *a, **b: seen.append(bool(inside)) or before(*a, **b)

    kernels._varlen_parameters()  # those of the stand-in
    monkeypatch.setattr(kernels, "_without_plans", without_plans)
    monkeypatch.setattr(kernels, "varlen_attn", recorded(stand_in))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded(torch.nn.functional.scaled_dot_product_attention))
    made = batch()
    q, k = (torch.randn(1, made.tokens.shape[1], heads, 8) for heads in (4, 2))
    {"rows": kernels._attend_rows, **KERNELS}[name](q, k, k, None if name == "rows" else made, Scoring(0.4, 0.0, None))
    assert seen and all(seen)


def test_rows_of_their_own_are_one_call(monkeypatch):
    calls: list[Any] = []
    before = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **b: calls.append(a) or before(*a, **b))
    q = torch.randn(6, 9, 2, 8)
    mask = torch.arange(9) < torch.tensor([9, 8, 7, 3, 2, 1])[:, None]
    kernels._attend_rows(q, q, q, mask, Scoring(0.4, 0.0, 4))
    assert len(calls) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: here the same forms run on a CPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("cap", "window", "copies"), [(0.0, None, 1), (0.0, 3, 3), (2.0, 3, 1)])
def test_on_a_gpu(dtype: torch.dtype, cap: float, window: int | None, copies: int):
    """What a call there takes, without cuDNN, is attention by definition."""
    draw, scoring = torch.Generator().manual_seed(5), Scoring(0.4, cap, window)
    inputs = [torch.randn(copies, batch().tokens.shape[1], heads, 8, generator=draw).to(dtype) for heads in (4, 2, 2)]
    found = []
    for device, kind in (("cuda", dtype), ("cpu", torch.float64)):
        made = batch().to(device)
        q, k, v = (x.to(device, kind).requires_grad_() for x in inputs)
        kernel = kernels.kernel_for(q, k, made, scoring) if device == "cuda" else by_definition
        with torch.profiler.profile() as profile:
            z = kernel(q, k, v, made, scoring)
        assert not any("cudnn" in event.key for event in profile.key_averages())
        z.double().square().sum().backward()
        found.append([x.double().cpu() for x in (z.detach(), q.grad, k.grad, v.grad) if x is not None])
    most = 1e-3 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(*found, atol=most, rtol=most)


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


@pytest.mark.parametrize("fault", ["wrong numbers", "another scale", "raises"])
def test_a_varlen_kernel_that_is_not_what_it_was_is_not_used(stand_in, monkeypatch, fault: str):
    def broken(*args: Any, **kwargs: Any) -> Tensor:
        if fault == "raises":
            raise TypeError("varlen_attn() got an unexpected keyword argument 'scale'")
        return stand_in(*args, **{**kwargs, **({"scale": None} if fault == "another scale" else {"window_size": (1, 0)})})

    q, k = torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 2, 8)
    monkeypatch.setattr(kernels, "kernel_name", lambda *_: "varlen")
    kernels._varlen_works.cache_clear()
    assert kernels.kernel_for(q, k, batch(), Scoring(0.4, 0.0, 3)) is kernels._attend_varlen
    kernels._varlen_works.cache_clear()
    monkeypatch.setattr(kernels, "varlen_attn", broken)
    with pytest.warns(UserWarning, match="varlen_attn is not used"):
        assert kernels.kernel_for(q, k, batch(), Scoring(0.4, 0.0, 3)) is kernels._attend_padded
    kernels._varlen_works.cache_clear()


def test_out_of_memory_says_nothing_of_a_kernel(stand_in, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    kernels._varlen_works.cache_clear()
    monkeypatch.setattr(kernels, "varlen_attn", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernels._varlen_works(torch.device("cpu"), torch.float32, 4, 2, 8, Scoring(0.4, 0.0, None))


def test_an_earlier_torch_is_given_the_arguments_that_it_has(monkeypatch):
    def early(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, is_causal=False):
        raise AssertionError("only its signature is looked at")

    monkeypatch.setattr(kernels, "varlen_attn", early)
    kernels._varlen_parameters.cache_clear()
    q, k = torch.zeros(1, 3, 4, 16), torch.zeros(1, 3, 2, 16)
    assert kernels._varlen_options(q, k, Scoring(0.25, 0.0, None)) == {"is_causal": True}
    taken = [kernels._varlen_takes(scoring, 16) for scoring in (Scoring(0.25, 0, None), Scoring(0.2, 0, None), Scoring(0.25, 0, 4))]
    assert taken == [True, False, False] and kernels._varlen_takes(Scoring(1 / 128**0.5, 0, None), 128)
    kernels._varlen_parameters.cache_clear()


@pytest.mark.parametrize("name", ["padded", "varlen"])
def test_a_batch_is_one_call_a_layer(tiny, stand_in, monkeypatch, name: str):
    """Rewards of a whole model, and their gradients, through the kernels of a GPU: what torch is asked for is counted, and what moves."""
    calls: list[str] = []
    moved: list[Tensor] = []
    padded, move = torch.nn.functional.scaled_dot_product_attention, layouts.batch_tensor_on
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **b: calls.append("padded") or padded(*a, **b))
    monkeypatch.setattr(layouts, "batch_tensor_on", lambda tensor, device: moved.append(tensor) or move(tensor, device))
    monkeypatch.setattr(kernels, "_varlen_works", lambda *_: True)
    ids = [tuple(range(10 * i, 10 * i + 8)) for i in range(6)]
    ids += [(*each[:5], 99) for each in ids]
    inner = tiny.embed(packed(ids).tokens).detach()

    def read(made: PackedBatch, kind: str) -> list[Tensor | None]:
        monkeypatch.setattr(kernels, "kernel_name", lambda *_: kind)
        leaf = inner.clone().requires_grad_()
        reward = tiny(leaf, attention_mask=made, start_at_layer=0)
        reward.sum().backward()
        return [reward.detach(), leaf.grad]

    want = read(packed(ids), "one by one")
    made = packed(ids)
    for _ in range(2):
        calls.clear()
        stand_in.calls = 0
        torch.testing.assert_close(read(made, name), want, atol=1e-5, rtol=1e-3)
        assert [*calls, *["varlen"] * stand_in.calls] == [name] * tiny.cfg.n_layers
        assert len(moved) == (4 if name == "varlen" else 7)  # by the first layer, and never again


@pytest.mark.parametrize("name", KERNELS)
def test_a_batch_that_was_read_without_gradients_can_be_read_with_them(tiny, stand_in, monkeypatch, name: str):
    monkeypatch.setattr(kernels, "kernel_name", lambda *_: name)
    monkeypatch.setattr(kernels, "_varlen_works", lambda *_: True)
    made = batch()
    with torch.inference_mode():
        tiny(made.tokens, None, attention_mask=made)
    leaf = tiny.embed(made.tokens).detach().requires_grad_()
    tiny(leaf, attention_mask=made, start_at_layer=0).sum().backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()
