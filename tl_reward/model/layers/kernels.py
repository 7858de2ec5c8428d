"""From queries, keys and values to what each head reads, without scores that anybody could look at; and which kernel a call takes.

On a CPU a packed batch is attended transcript by transcript: what one call works on stays in the cache. On a GPU each call costs a launch
(and with cuDNN a plan for each new pair of lengths, 0.1 to 0.5 s), so that all transcripts of a batch go in one.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import isclose
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None

from tl_reward.data.batches.packing import PackedBatch, Span
from tl_reward.errors import first_line

# One transcript a row: [batch, pos], above 0 at real tokens, or None where all are real. Many in one row: the packed batch itself.
AttentionMask = Tensor | PackedBatch | None


class Scoring(NamedTuple):
    """How a layer scores a key for a query: their product times `scale`, capped at `cap` if that is above 0, within `window` tokens."""

    scale: float
    cap: float
    window: int | None


Query = Float[Tensor, "batch query head d_head"]
Key = Float[Tensor, "batch key kv_head d_head"]
Kernel = Callable[[Tensor, Tensor, Tensor, AttentionMask, Scoring], Tensor]


KernelName = Literal["rows", "one by one", "varlen", "padded"]
_HALVES = (torch.bfloat16, torch.float16)
_MOST_D_HEAD = 256  # of FlashAttention
_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def kernel_for(q: Query, k: Key, mask: AttentionMask, scoring: Scoring) -> Kernel:
    """Each kernel takes `q`, `k` and `v` as `attend` does, and gives `z` [batch, query, head, d_head]."""
    name = kernel_name(isinstance(mask, PackedBatch), q.device.type, q.dtype, q.shape[3], scoring.cap)
    if name == "varlen":
        heads, kv_heads, d_head = q.shape[2], k.shape[2], q.shape[3]
        # One window is as good as another for the trial.
        tried = Scoring(scoring.scale, 0.0, scoring.window and 4)
        if not _varlen_takes(scoring, d_head) or not _varlen_works(q.device, q.dtype, heads, kv_heads, d_head, tried):
            name = "padded"
    return _KERNELS[name]


def kernel_name(packed: bool, device: str, dtype: torch.dtype, d_head: int, cap: float) -> KernelName:
    """Which kernel a batch takes.

    | batch | device | precision, scores | kernel |
    |---|---|---|---|
    | a transcript a row | any | any | rows: one call |
    | packed | CPU | any | one by one: a call a transcript |
    | packed | CUDA | half precision, not capped, d_head a multiple of 8 up to 256 | varlen: one call, nothing filled up |
    | packed | any other | any | padded: one call, each transcript filled up to the longest |
    """
    if not packed:
        return "rows"
    if device == "cpu":
        return "one by one"
    fits = dtype in _HALVES and cap <= 0 and d_head % 8 == 0 and d_head <= _MOST_D_HEAD
    return "varlen" if device == "cuda" and fits and varlen_attn is not None else "padded"


def attend(q: Query, k: Key, v: Key, allowed: Bool[Tensor, "*#batch query key"] | None, scoring: Scoring) -> Query:
    """`allowed` None: each query attends to every earlier key."""
    dtype = q.dtype
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    # The kernel's backward pass on a CPU is slower in bfloat16 than in float32 (docs/performance.md).
    if q.requires_grad and dtype == torch.bfloat16 and q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    scale, cap = scoring.scale, scoring.cap
    grouped = k.shape[1] != q.shape[1]
    # Of a GPU's kernels, FlashAttention alone knows groups, and takes no mask: the others would hold every score.
    native = q.device.type == "cpu" or (q.dtype in _HALVES and allowed is None)
    if grouped and (cap > 0 or not native):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        grouped = False
    if cap <= 0:
        with _without_plans(q.device.type):
            z = F.scaled_dot_product_attention(
                q, k, v, attn_mask=allowed, is_causal=allowed is None, scale=scale, enable_gqa=grouped
            )  # fmt: skip
        return z.transpose(1, 2).to(dtype)
    if allowed is None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = cap * torch.tanh(scale * (q @ k.transpose(2, 3)) / cap)
    pattern = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (pattern @ v).transpose(1, 2).to(dtype)


def _attend_rows(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    assert not isinstance(mask, PackedBatch)
    return attend(q, k, v, _allowed(q.shape[1], mask, scoring.window, q.device), scoring)


def _attend_one_by_one(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    """Transcript by transcript: the tokens that it adds attend to its prefix, wherever that stands, and to themselves."""
    assert isinstance(mask, PackedBatch)
    parts = []
    for i, spans in enumerate(mask.spans):
        keys, values = (_join([x[:, start:end] for start, end in spans]) for x in (k, v))
        parts.append(attend(q[:, spans[-1].start : spans[-1].end], keys, values, mask.allowed(i, scoring.window), scoring))
    return _join(parts)


def _attend_padded(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    """All transcripts in one call, or in a few, each in a row of its own. Copies of the packed row are rows of their own as well."""
    assert isinstance(mask, PackedBatch)
    copies = q.shape[0]
    calls, token = mask.layouts.padded(scoring.window, scores=scoring.cap > 0 or q.device.type == "mps")
    parts = []
    for queries, keys, allowed in calls:
        some_q, some_k, some_v = (x[:, places].flatten(0, 1) for x, places in ((q, queries), (k, keys), (v, keys)))
        # [copy * row, 1, query, key]: the same for every head.
        z = attend(some_q, some_k, some_v, allowed.repeat(copies, 1, 1)[:, None], scoring)
        parts.append(z.unflatten(0, (copies, len(queries))).flatten(1, 2))
    return _join(parts)[:, token]


def _attend_varlen(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    """All transcripts in one call of FlashAttention for rows of unequal length; their keys are gathered, prefixes included."""
    assert isinstance(mask, PackedBatch) and varlen_attn is not None
    copies, parts = q.shape[0], []
    options = _varlen_options(q, k, scoring)
    for queries, keys, query_ends, key_ends, most_queries, most_keys in mask.layouts.varlen(copies):
        some_q = q[:, queries.start : queries.end].flatten(0, 1)
        some_k, some_v = (x[:, keys].flatten(0, 1) for x in (k, v))
        with _without_plans(q.device.type):
            z = varlen_attn(some_q, some_k, some_v, query_ends, key_ends, most_queries, most_keys, **options)
        assert isinstance(z, Tensor)
        parts.append(z.unflatten(0, (copies, -1)))
    return _join(parts)


def _without_plans(device: str) -> AbstractContextManager[Any]:
    """Keeps cuDNN away, which plans anew for every shape of its input."""
    return sdpa_kernel(_BACKENDS) if device == "cuda" else nullcontext()


def _varlen_options(q: Query, k: Key, scoring: Scoring) -> dict[str, Any]:
    """A query that follows a prefix attends from the bottom right: the last query sees the last key. torch 2.10 called that
    `is_causal`."""
    known = _varlen_parameters()
    options: dict[str, Any] = {"scale": scoring.scale} if "scale" in known else {}
    if "window_size" in known:
        options["window_size"] = (-1 if scoring.window is None else scoring.window - 1, 0)
    else:
        options["is_causal"] = True
    if "enable_gqa" in known:
        options["enable_gqa"] = q.shape[2] != k.shape[2]
    return options


def _varlen_takes(scoring: Scoring, d_head: int) -> bool:
    """Whether this version can be told of this window and scale."""
    known = _varlen_parameters()
    return (scoring.window is None or "window_size" in known) and ("scale" in known or isclose(scoring.scale, d_head**-0.5))


@lru_cache
def _varlen_parameters() -> frozenset[str]:
    return frozenset(inspect.signature(varlen_attn).parameters) if varlen_attn is not None else frozenset()


@lru_cache
def _varlen_works(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, d_head: int, scoring: Scoring) -> bool:
    """Whether this version's kernel gives what `attend` gives, forward and backward, on two short transcripts with a prefix. Its
    arguments moved between versions, and a wrong number would say nothing: it is tried once for each kind of attention."""
    places = torch.zeros(16, dtype=torch.long, device=device)
    batch = PackedBatch(
        tokens=places[None], position=places, response=places > 0, row=places[:2], readout=places[:2],
        spans=((Span(0, 9),), (Span(0, 5), Span(9, 16))),
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            found = []
            inputs = [torch.randn(1, 16, count, d_head, generator=draw) for count in (heads, kv_heads, kv_heads)]
            for kernel, kind in ((_attend_varlen, dtype), (_attend_padded, torch.float32)):
                q, k, v = (x.to(device, dtype).to(kind).requires_grad_() for x in inputs)
                z = kernel(q, k, v, batch, scoring)
                z.float().square().sum().backward()
                found.append([z.detach().float(), *(leaf.grad.float() for leaf in (q, k, v) if leaf.grad is not None)])
        good = all(torch.allclose(a, b, atol=0.05, rtol=0.05) for a, b in zip(*found, strict=True))
        reason = "it gives other numbers"
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # what torch has no kernel for is a RuntimeError
        good, reason = False, first_line(error)
    if not good:
        warnings.warn(f"torch {torch.__version__}: varlen_attn is not used ({reason}); packed batches are filled up instead", stacklevel=2)
    return good


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _allowed(length: int, mask: Tensor | None, window: int | None, device: torch.device) -> Bool[Tensor, "#batch 1 query key"] | None:
    """Which keys each query may attend to; None where that is just every earlier one."""
    window = window if window is not None and window < length else None
    if mask is None and window is None:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    allowed = (distance >= 0)[None, None]
    if window is not None:
        allowed = allowed & (distance < window)
    if mask is not None:
        allowed = allowed & mask.bool()[:, None, None, :]
        # A padding query may attend to nothing, which the kernel answers with NaN. Let it see itself: nobody reads it.
        allowed = allowed | (distance == 0)
    return allowed


_KERNELS: dict[KernelName, Kernel] = {
    "rows": _attend_rows,
    "one by one": _attend_one_by_one,
    "varlen": _attend_varlen,
    "padded": _attend_padded,
}
