"""How fast is it on this machine's GPU, beside Hugging Face? Prints ratios as they come, and writes them to benchmarks/gpu.json.

    python benchmarks/gpu.py                       # at most 4 minutes; starts with torch, transformers and this package alone
    python benchmarks/gpu.py --shapes tiny         # a dry run of every part, on a CPU too

Models have random weights in the shapes of SmolLM2 135M, Llama 3.2 1B and Llama 3.1 8B, in bfloat16. Rows are as long, and share as much,
as the pairs' texts in tokens: every fourth byte of a text stands for a token. Every figure is the median of three warm runs in this
process, and Hugging Face runs in the batch size that suits it best.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hugging_face
import torch
import tyro
from transformers import LlamaConfig, LlamaForSequenceClassification

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.data.encoding import EncodedPairs, Row
from tl_reward.data.readers import EMBEDDED, load_pairs
from tl_reward.errors import InputError, first_line, one_line_errors
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.model.layers import kernels
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.neurons import NeuronSet
from tl_reward.running.batching import encode_for
from tl_reward.running.scoring import score, sweep


class Shape(NamedTuple):
    d_model: int
    d_mlp: int
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    pairs: int


SHAPES = {
    "tiny": Shape(64, 128, 4, 4, 2, 16, pairs=8),
    "135M": Shape(576, 1536, 30, 9, 3, 64, pairs=512),
    "1B": Shape(2048, 8192, 16, 32, 8, 64, pairs=512),
    "8B": Shape(4096, 14336, 32, 32, 8, 128, pairs=192),
}
TARGETS = {
    "score": ">= 1.3 (135M: >= 1.0)", "discover": "<= 1.5", "attribute": "<= 4", "16 ablations": "<= 0.6 a pass",
    "16 late ablations": "<= 0.3 a pass", "256 single neurons": "<= 40",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    shapes: tuple[str, ...] = ("1B", "135M", "8B")
    """Which of tiny, 135M, 1B and 8B."""
    pairs: str = EMBEDDED
    """Preference pairs, for the lengths of their texts: a file, a hub id, or "embedded"."""
    seconds: float = 240
    """When to stop."""
    out: Path = Path(__file__).parent / "gpu.json"
    """Where to write the figures."""


class Timing(NamedTuple):
    first: float
    steady: float
    peak_gib: float


class Clock:
    """Times work on a device to its end, until there is no time left."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self._deadline = time.monotonic() + seconds

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def once(self, work: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def __call__(self, work: Callable[[], Any]) -> Timing:
        """The first run, and the median of up to three more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        first = self.once(work)
        times = [self.once(work)]
        while len(times) < 3 and self.left() > 2 * times[0]:
            times.append(self.once(work))
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0  # not looked at
        return Timing(first, statistics.median(times), peak)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main(config: Config) -> None:
    unknown = [name for name in config.shapes if name not in SHAPES]
    if unknown:
        raise InputError(f"shapes must be of {', '.join(SHAPES)}, got {unknown[0]!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU: no GPU was found, so that no figure here is one of a GPU"
    report: dict[str, Any] = {"device": card, "torch": torch.__version__, "targets": TARGETS}
    print(f"{card}, torch {torch.__version__}", flush=True)
    clock = Clock(device, config.seconds)
    for name in config.shapes:
        try:
            report[name] = {}
            for key, value in measured(SHAPES[name], config.pairs, clock):
                report[name][key] = value
                print(f"{name}: {key}: {json.dumps(value)}", flush=True)
                config.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except torch.cuda.OutOfMemoryError as error:
            print(f"{name}: {first_line(error)}", flush=True)
    print(f"Written to {config.out}")


def measured(shape: Shape, source: str, clock: Clock) -> Iterator[tuple[str, Any]]:
    """The figures of one shape, each as soon as it is there; those that no time is left for are named."""
    theirs = random_model(shape, clock.device)
    ours = HookedRewardModel.from_hf(theirs, byte_tokenizer(), device=clock.device)
    pairs = rows_of(ours, source, shape.pairs)
    tokens = sum(len(row.ids) for row in pairs.rows)
    work = weights_of(shape) * 2 * tokens
    peak = matrix_product_peak(shape, clock)
    yield "tokens", tokens
    best = min((hugging_face_pass(theirs, pairs, most, clock) for most in (8192, 32768)), key=lambda timing: timing.steady)
    yield "Hugging Face", {**rounded(best), "tokens_per_second": round(tokens / best.steady), "of_peak": of(work, best.steady, peak)}
    with counted() as calls:
        found = score(ours, pairs)
    batches = len({batch for _, batch in calls})
    launches = len(calls) / batches / shape.layers
    yield "attention calls", {"kernels": sorted({name for name, _ in calls}), "a_layer_and_batch": launches, "batches": batches}
    want = hugging_face.rewards(theirs, pairs.rows, hugging_face.of_tokens(pairs.rows, 8192, 0))
    got = torch.tensor(found.chosen)
    yield "largest difference of rewards", round(float((got - want[list(pairs.chosen)]).abs().max() / want.std()), 4)
    few = first_of(pairs, max(2, len(pairs.pairs) // 8))
    share = sum(len(row.ids) for row in few.rows) / tokens
    for key, passes, run in works(ours, pairs, few, share):
        if clock.left() < 20:
            yield key, "no time was left"
            continue
        timing = clock(run)
        relative = best.steady * passes / timing.steady if key == "score" else timing.steady / (best.steady * passes)
        more = {"tokens_per_second": round(tokens / timing.steady), "of_peak": of(work, timing.steady, peak)} if key == "score" else {}
        yield key, {"ratio": round(relative, 3), "target": TARGETS[key], **rounded(timing), **more}


def works(model: HookedRewardModel, pairs: EncodedPairs, few: EncodedPairs, share: float) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """What is timed, and how many Hugging Face passes over all pairs its ratio is over."""
    layers, d_mlp = model.cfg.n_layers, int(model.cfg.d_mlp or 0)
    rank = torch.rand(layers, d_mlp, generator=torch.Generator().manual_seed(0))
    late = rank.clone()
    late[: 2 * layers // 3] = -1
    every = [[ZeroAblation(NeuronSet.top(rank.roll(i, 1), fraction=0.1))] for i in range(16)]
    last = [[ZeroAblation(NeuronSet.top(late.roll(i, 1), fraction=0.03))] for i in range(16)]
    single = NeuronSet.top(rank, k=min(256, rank.numel() // 2))
    yield "score", 1, partial(score, model, pairs)
    yield "discover", 1, partial(discover, model, pairs)
    yield "attribute", 1, partial(attribute, model, pairs)
    yield "16 ablations", 16 * share, partial(sweep, model, few, every)
    yield "16 late ablations", 16 * share, partial(sweep, model, few, last)
    yield "256 single neurons", share, partial(neuron_effects, model, few, single)


def hugging_face_pass(model: Any, pairs: EncodedPairs, most: int, clock: Clock) -> Timing:
    return clock(lambda: hugging_face.rewards(model, pairs.rows, hugging_face.of_tokens(pairs.rows, most, 0)))


def random_model(shape: Shape, device: torch.device) -> LlamaForSequenceClassification:
    config = LlamaConfig(
        vocab_size=257, hidden_size=shape.d_model, intermediate_size=shape.d_mlp, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.d_head, num_labels=1, pad_token_id=0,
        max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = LlamaForSequenceClassification(config)
    finally:
        torch.set_default_dtype(before)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    return model.eval().requires_grad_(False)


def rows_of(model: HookedRewardModel, source: str, count: int) -> EncodedPairs:
    """Every fourth byte of a text as a token: about as many as a tokenizer of words makes, and beginnings that are shared stay so."""
    pairs = encode_for(model, load_pairs(source, split="test", limit=count, on_bad="drop"), max_length=4096)
    rows = tuple(Row(row.ids[3::4] or row.ids[-1:], row.response_start // 4) for row in pairs.rows)
    return EncodedPairs(pairs.pairs, rows, pairs.chosen, pairs.rejected, pairs.reading)


def first_of(pairs: EncodedPairs, count: int) -> EncodedPairs:
    used = sorted({*pairs.chosen[:count], *pairs.rejected[:count]})
    chosen, rejected = (tuple(used.index(i) for i in side[:count]) for side in (pairs.chosen, pairs.rejected))
    return EncodedPairs(pairs.pairs[:count], tuple(pairs.rows[i] for i in used), chosen, rejected, Reading(count))


def weights_of(shape: Shape) -> int:
    attention = shape.d_model * shape.d_head * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.d_model * shape.d_mlp)


def matrix_product_peak(shape: Shape, clock: Clock) -> float:
    """FLOP/s of the matrix product that the model spends most on: the best of ten."""
    rows = 8192 if clock.device.type == "cuda" else 256
    x, w = (torch.randn(n, shape.d_model, dtype=torch.bfloat16, device=clock.device) for n in (rows, shape.d_mlp))
    return 2 * rows * shape.d_model * shape.d_mlp / min(clock.once(lambda: torch.nn.functional.linear(x, w)) for _ in range(10))


@contextmanager
def counted() -> Iterator[list[tuple[str, int]]]:
    """The kernel and the batch of each attention call."""
    calls: list[tuple[str, int]] = []
    kept = []  # so that no batch takes the place in memory of one that is gone
    before = dict(kernels._KERNELS)
    for name, kernel in before.items():
        kernels._KERNELS[name] = partial(_counted, name, kernel, calls, kept)
    try:
        yield calls
    finally:
        kernels._KERNELS.update(before)


def _counted(name: str, kernel: kernels.Kernel, calls: list[tuple[str, int]], kept: list[Any], *given: Any) -> Any:
    kept.append(given[3])
    calls.append((name, id(given[3])))
    return kernel(*given)


def of(work: float, seconds: float, peak: float) -> float:
    return round(work / seconds / peak, 3)


def rounded(timing: Timing) -> dict[str, float]:
    return {key: float(f"{value:.4g}") for key, value in timing._asdict().items()}


if __name__ == "__main__":
    with one_line_errors("gpu.py"):
        main(tyro.cli(Config, description=__doc__))
