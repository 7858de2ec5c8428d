"""How many tokens a batch may hold: as many as memory allows, and no more than run fastest."""

from bisect import bisect_left
from pathlib import Path

import psutil
import torch

from tl_reward import parallel
from tl_reward.errors import InputError
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
    unit: str = "transcript",
) -> int:
    """The number of tokens that a batch may hold.

    Args:
        longest: tokens of the longest transcript, or whatever else (`unit`) has to be in one batch.
        gradients: a backward pass follows, so that every layer's activations are kept.
        scores: attention scores may be computed, since somebody may look at them.

    Raises:
        InputError: less than `longest`; the message names the smallest that would do.
    """
    if max_tokens is not None and max_tokens < longest:
        raise InputError(f"max_tokens must be at least {longest}, the longest {unit} here, got {max_tokens}")
    each = bytes_per_token(model, longest, gradients=gradients, scores=scores)
    room = free_memory(model) / 2 if max_memory_gb is None else max_memory_gb * 2**30
    if room < longest * each:
        got = f"half of what is free is {room / 2**30:.3g}" if max_memory_gb is None else f"got {max_memory_gb:g}"
        least = _round_up(longest * each / 2**30)
        raise InputError(f"max_memory_gb must be at least {least:g}, for the longest {unit} of {longest} tokens; {got}")
    fits = int(room // each)
    return min(fits, max_tokens if max_tokens is not None else max(longest, _fastest(model, gradients)))


def longest_that_fits(model: HookedRewardModel, *, max_memory_gb: float | None = None, gradients: bool = False) -> int:
    """The longest transcript, in tokens, that a batch has room for: the model's context, or where that does not fit a multiple of 256.

    Never less than `LEAST_LENGTH`, or the context: where such a transcript does not fit, `tokens_per_batch` says what would do.
    """
    context = int(model.cfg.n_ctx)
    room = free_memory(model) / 2 if max_memory_gb is None else max_memory_gb * 2**30

    def fits(length: int) -> bool:
        return length * bytes_per_token(model, length, gradients=gradients) <= room

    if fits(context):
        return context
    steps = range(LEAST_LENGTH, max(context, LEAST_LENGTH + 1), 256)
    return min(context, steps[max(0, bisect_left(steps, True, key=lambda length: not fits(length)) - 1)])


def bytes_per_token(model: HookedRewardModel, longest: int, *, gradients: bool = False, scores: bool = False) -> int:
    """An estimate of what a token takes while a layer runs, or in all layers where their activations are kept for a backward pass.

    Counted on the layers: in the MLP gate, activation, linear part, product and a float32 copy of one; in attention queries, keys and
    values before and after rotation, and the heads' output; the residual stream around both. Where attention scores are computed, four
    rows of them a head: scores before and after the cap or the mask, and the pattern before and after dropped padding.
    """
    cfg = model.cfg
    size = torch.finfo(cfg.dtype).bits // 8
    width = 5 * int(cfg.d_mlp or 0) + 12 * cfg.d_model
    layer = width * size + 4 * (int(cfg.d_mlp or 0) + cfg.d_model)
    if scores or cfg.attn_scores_soft_cap > 0:
        layer += 4 * cfg.n_heads * longest * size
    return layer * cfg.n_layers if gradients else layer


def free_memory(model: HookedRewardModel) -> int:
    """Bytes free on the model's device; on a CPU within the limit of the process' control group, if it has one, and shared among the
    processes that `parallel` counts on this machine."""
    device = model.W_U.device
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch holds it, and will use it again
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([psutil.virtual_memory().available, *_cgroup_rooms()]) // parallel.on_this_machine()


def _cgroup_rooms(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What the control group's limit leaves, for versions 2 and 1. Files that it has in its cache can go, and count as free."""
    rooms = []
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            cached = dict(line.split() for line in (root / statistics).read_text().splitlines()).get("inactive_file", "0")
            rooms.append(int((root / limit).read_text()) - int((root / used).read_text()) + int(cached))
        except (OSError, ValueError):  # no such group, or a limit of "max"
            continue
    return rooms


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
