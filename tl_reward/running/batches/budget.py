"""How many tokens a batch may hold: as many as memory allows, and no more than run fastest."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tl_reward.data.batches.layouts import MOST_KEYS
from tl_reward.devices import free_bytes
from tl_reward.errors import InputError, OutOfMemory
from tl_reward.model.layers.kernels import kernel_name
from tl_reward.model.reward_model import HookedRewardModel

# Past these sizes a batch is no faster (docs/performance.md). On a CPU, activations of more than a few MiB leave the cache, and the
# allocator returns them to the system after each use.
CPU_ACTIVATION_BYTES = 8 * 2**20
CPU_TOKENS = (256, 1024)
CPU_TOKENS_WITH_GRADIENTS = 512
GPU_TOKENS = 16384
LEAST_LENGTH = 1024  # tokens of a transcript; for memory's sake none is left out that is shorter


def tokens_per_batch(
    model: HookedRewardModel,
    longest: int,
    *,
    max_tokens: int | None = None,
    max_memory_gb: float | None = None,
    gradients: bool = False,
    scores: bool = False,
    kept: int = 0,
    unit: str = "transcript",
) -> int:
    """The number of tokens that a batch may hold.

    Args:
        longest: tokens of the longest transcript, or whatever else (`unit`) has to be in one batch.
        gradients: a backward pass follows, so that every layer's activations are kept.
        scores: attention scores may be computed, since somebody may look at them.
        kept: bytes that an edit keeps of each token besides, as a patch does of what its source computes.

    Raises:
        InputError: less than `longest`; the message names the smallest that would do. OutOfMemory where nothing but memory sets it.
    """
    if max_tokens is not None and max_tokens < longest:
        raise InputError(f"max_tokens must be at least {longest}, the longest {unit} here, got {max_tokens}")
    each = bytes_per_token(model, longest, gradients=gradients, scores=scores) + kept
    room = free_memory(model) / 2 if max_memory_gb is None else max_memory_gb * 2**30
    if room < longest * each:
        got = f"half of what is free is {room / 2**30:.3g}" if max_memory_gb is None else f"got {max_memory_gb:g}"
        least = _round_up(longest * each / 2**30)
        kind = OutOfMemory if max_memory_gb is None else InputError
        raise kind(f"max_memory_gb must be at least {least:g}, for the longest {unit} of {longest} tokens; {got}")
    fits = int(room // each)
    return min(fits, max_tokens if max_tokens is not None else max(longest, _fastest(model, gradients)))


class Sizes(NamedTuple):
    """What of a model's TransformerLens config decides how much memory a token takes, and how many tokens it reads."""

    n_ctx: int
    n_layers: int
    n_heads: int
    d_model: int
    d_mlp: int
    d_head: int
    n_key_value_heads: int = 0
    attn_scores_soft_cap: float = -1.0

    @classmethod
    def of(cls, config: Any) -> "Sizes":
        """Of a config, or of the dictionary that one is made of."""
        given = config if isinstance(config, Mapping) else vars(config)
        return cls(**{name: given[name] or 0 for name in cls._fields if name in given})


def longest_that_fits(
    model: HookedRewardModel,
    *,
    max_memory_gb: float | None = None,
    gradients: bool = False,
    others: Sequence[Sizes] = (),
) -> int:
    """The longest transcript, in tokens, that a batch has room for: the model's context, or where that does not fit a multiple of 256.

    Never less than `LEAST_LENGTH`, or the context: where such a transcript does not fit, `tokens_per_batch` says what would do.

    Args:
        gradients: as in `tokens_per_batch`.
        others: of models that are to read the same transcripts.
    """
    every = {Sizes.of(model.cfg), *others}
    context = min(each.n_ctx for each in every)
    room = free_memory(model) / 2 if max_memory_gb is None else max_memory_gb * 2**30

    def fits(length: int) -> bool:
        device, dtype = model.W_U.device, model.cfg.dtype
        most = max(_bytes_per_token(each, device, dtype, length, gradients=gradients, scores=False) for each in every)
        return length * most <= room

    if fits(context):
        return context
    steps = range(LEAST_LENGTH, max(context, LEAST_LENGTH + 1), 256)
    return min(context, steps[max(0, bisect_left(steps, True, key=lambda length: not fits(length)) - 1)])


def bytes_per_token(model: HookedRewardModel, longest: int, *, gradients: bool = False, scores: bool = False) -> int:
    """An estimate of what a token takes while a layer runs, or in all layers where their activations are kept for a backward pass.

    Counted on the layers: in the MLP gate, activation, linear part, product and a float32 copy of one; in attention queries, keys and
    values before and after rotation, and the heads' output; the residual stream around both (on a GPU, whose statistics are
    taken of all tokens at once, two float32 copies). Where attention scores are computed, four
    rows of them a head: scores before and after the cap or the mask, and the pattern before and after dropped padding. On a GPU, what
    packed batches gather for attention (`data.batches.layouts`): keys and values, and for rows that are filled up a mask, kept as a
    number too.
    """
    return _bytes_per_token(Sizes.of(model.cfg), model.W_U.device, model.cfg.dtype, longest, gradients=gradients, scores=scores)


def _bytes_per_token(sizes: Sizes, device: torch.device, dtype: torch.dtype, longest: int, *, gradients: bool, scores: bool) -> int:
    size = torch.finfo(dtype).bits // 8
    width = 5 * sizes.d_mlp + 12 * sizes.d_model
    layer = width * size + 4 * (sizes.d_mlp + sizes.d_model)
    if scores or sizes.attn_scores_soft_cap > 0:
        layer += 4 * sizes.n_heads * longest * size
    if device.type != "cpu":
        layer += 4 * sizes.d_mlp
    kernel = kernel_name(True, device.type, dtype, sizes.d_head, sizes.attn_scores_soft_cap)
    if kernel in ("varlen", "padded"):
        heads = (sizes.n_key_value_heads or sizes.n_heads) if kernel == "varlen" else sizes.n_heads
        layer += 2 * MOST_KEYS * heads * sizes.d_head * size + (5 * MOST_KEYS * longest if kernel == "padded" else 0)
    return layer * sizes.n_layers if gradients else layer


def free_memory(model: HookedRewardModel) -> int:
    """Bytes free on the model's device, for this process (`devices.free_bytes`)."""
    return free_bytes(model.W_U.device)


def _fastest(model: HookedRewardModel, gradients: bool) -> int:
    if model.W_U.device.type != "cpu":
        return GPU_TOKENS
    size = torch.finfo(model.cfg.dtype).bits // 8
    fewest, most = CPU_TOKENS
    most = CPU_TOKENS_WITH_GRADIENTS if gradients else most
    return max(fewest, min(most, CPU_ACTIVATION_BYTES // (int(model.cfg.d_mlp or 1) * size)))


def _round_up(value: float) -> float:
    """To three digits, upwards: what is named as enough has to be."""
    return float(f"{value * 1.005:.2e}")
