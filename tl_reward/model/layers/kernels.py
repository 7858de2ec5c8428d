"""From queries, keys and values to what each head reads, without scores that anybody could look at; and which kernel a call takes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tl_reward.data.batches.packing import PackedBatch

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


def kernel_for(mask: AttentionMask) -> Kernel:
    """The kernel for a batch of this kind. Each takes `q`, `k` and `v` as `attend` does, and gives `z` [batch, query, head, d_head]."""
    return _KERNELS["packed" if isinstance(mask, PackedBatch) else "rows"]


def attend(q: Query, k: Key, v: Key, allowed: Bool[Tensor, "*#batch query key"] | None, scoring: Scoring) -> Query:
    """`allowed` None: each query attends to every earlier key."""
    dtype = q.dtype
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    # The kernel's backward pass on a CPU is slower in bfloat16 than in float32 (docs/performance.md).
    if q.requires_grad and dtype == torch.bfloat16 and q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    scale, cap = scoring.scale, scoring.cap
    if cap <= 0:
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=allowed is None, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
        )
        return z.transpose(1, 2).to(dtype)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if allowed is None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = cap * torch.tanh(scale * (q @ k.transpose(2, 3)) / cap)
    pattern = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (pattern @ v).transpose(1, 2).to(dtype)


def _attend_rows(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    assert not isinstance(mask, PackedBatch)
    return attend(q, k, v, _allowed(q.shape[1], mask, scoring.window, q.device), scoring)


def _attend_packed(q: Query, k: Key, v: Key, mask: AttentionMask, scoring: Scoring) -> Query:
    """Transcript by transcript: the tokens that it adds attend to its prefix, wherever that stands, and to themselves."""
    assert isinstance(mask, PackedBatch)
    parts = []
    for i, spans in enumerate(mask.spans):
        keys, values = (_join([x[:, start:end] for start, end in spans]) for x in (k, v))
        parts.append(attend(q[:, spans[-1].start : spans[-1].end], keys, values, mask.allowed(i, scoring.window), scoring))
    return _join(parts)


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


_KERNELS: dict[str, Kernel] = {"rows": _attend_rows, "packed": _attend_packed}
