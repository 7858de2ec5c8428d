"""How fast is it on this machine's GPU, beside Hugging Face? Prints ratios as they come, and writes them to benchmarks/gpu.json.

    python benchmarks/gpu.py --pairs hh-rlhf/harmless-base/test.jsonl.gz     # at most 4 minutes; without --pairs the embedded ones
    python benchmarks/gpu.py --shapes tiny         # a dry run of every part, on a CPU too, in a few seconds

It needs torch, transformers and this package with its dependencies, and no network. Models have random weights in the shapes of Llama 3.2
1B, Llama 3.1 8B and SmolLM2 135M, in bfloat16. Rows are as long, and share as much, as the texts of pairs: every fourth byte of a text
stands for a token. Hugging Face runs in the same process, in the batch size that suits it best. A time is the median of three warm runs,
to the end of what the device does; "first" is the first run, which loads kernels. Each step has a limit of its own, and what no time is
left for is named.
"""

import gc
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import tyro
from gpu_measure import STEP, Counts, TooLong, at_most, counts_of, freed, once, timed
from hugging_face import of_tokens, rewards
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.data.encoding import EncodedPairs, Row
from tl_reward.data.readers import EMBEDDED, load_pairs
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, first_line, one_line_errors
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score, sweep


class Shape(NamedTuple):
    """A model's, how many pairs it reads, and its part of the time."""

    d_model: int
    d_mlp: int
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    pairs: int
    part: int


SHAPES = {
    "tiny": Shape(64, 128, 4, 4, 2, 16, pairs=8, part=1),
    "1B": Shape(2048, 8192, 16, 32, 8, 64, pairs=256, part=3),
    "8B": Shape(4096, 14336, 32, 32, 8, 128, pairs=96, part=4),
    "135M": Shape(576, 1536, 30, 9, 3, 64, pairs=512, part=2),
}
TARGETS = {
    "score": ">= 1.3", "discover": "<= 1.5", "attribute": "<= 4", "16 ablations, all layers": "<= 0.6 a pass",
    "16 ablations, last third": "<= 0.3 a pass", "256 single neurons": "<= 40",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    shapes: tuple[str, ...] = ("1B", "8B", "135M")
    """Which of tiny, 1B, 8B and 135M."""
    pairs: str = EMBEDDED
    """Preference pairs, for the lengths of their texts: a file, a hub id, or "embedded"."""
    seconds: float = 230
    """When to stop, counted from the start of the process."""
    out: Path = Path(__file__).parent / "gpu.json"
    """Where to write the figures."""


class Steps:
    """Figures of a shape, one step after the other; what fails or takes too long says so, and the next one has its turn."""

    def __init__(self, name: str, figures: dict[str, Any], written: Callable[[], None], seconds: float) -> None:
        self.name, self.figures, self._written = name, figures, written
        self.end = time.monotonic() + seconds

    def __call__(self, key: str, work: Callable[[], Any]) -> Any:
        """What `work` gives, as a figure; None where it gave none."""
        limit, found = min(STEP, self.end - time.monotonic()), None
        gc.collect()
        try:
            if limit < 1:
                raise TooLong("no time was left")
            with at_most(limit):
                self.figures[key] = found = work()
        except TooLong as error:
            self.figures[key] = f"not measured: {error}"
        except Exception as error:  # whatever it is, the other figures are still wanted
            self.figures[key] = f"not measured: {type(error).__name__}: {first_line(error)}"
        print(f"{self.name}: {key}: {json.dumps(self.figures[key])}", flush=True)
        self._written()
        return found


def main(config: Config, start: float) -> None:
    """`start`: when the process began, in seconds since the epoch."""
    unknown = [name for name in config.shapes if name not in SHAPES]
    if unknown or not config.shapes:
        raise InputError(f"shapes must be of {', '.join(SHAPES)}, got {unknown[0] if unknown else 'none'}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()}): no figure here is one of a GPU"
    report: dict[str, Any] = {"device": card, "torch": torch.__version__, "precision": "bfloat16", "targets": TARGETS, "shapes": {}}
    print(f"{card}, torch {torch.__version__}", flush=True)

    def write() -> None:
        config.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    end = start + config.seconds
    for i, name in enumerate(config.shapes):
        part = SHAPES[name].part / sum(SHAPES[rest].part for rest in config.shapes[i:])
        figures = report["shapes"][name] = {}
        measure(Steps(name, figures, write, (end - time.time()) * part), SHAPES[name], config.pairs, device)
        freed(device)
    write()
    show(report)
    print(f"Written to {config.out}")


def measure(steps: Steps, shape: Shape, source: str, device: torch.device) -> None:
    kept: dict[str, Any] = {}

    def load() -> dict[str, Any]:
        kept["theirs"] = random_model(shape, device)
        kept["ours"] = HookedRewardModel.from_hf(kept["theirs"], byte_tokenizer(), device=device)
        kept["pairs"] = rows_of(kept["ours"], source, shape.pairs)
        return {"pairs": len(kept["pairs"].pairs), "tokens": tokens_of(kept["pairs"])}

    if steps("read", load) is None:
        return
    theirs, ours, pairs = kept["theirs"], kept["ours"], kept["pairs"]
    peak = steps("matrix_product_teraflops", lambda: round(matrix_product_peak(shape, device) / 1e12, 3))
    work = 2e-12 * weights_of(shape)  # 10^12 operations a token
    hf = steps("Hugging Face", lambda: best_of(theirs, pairs, device, steps.end, work / peak if peak else None))
    if hf is None:
        return
    few = first_of(pairs, max(2, len(pairs.pairs) // 8))
    share = tokens_of(few) / tokens_of(pairs)
    for key, passes, run in contests(ours, pairs, few, share):
        steps(key, partial(against, key, run, hf["steady"] * passes, device, steps.end, work / peak if peak else None))
        if key == "score":
            steps("largest_difference_of_rewards", lambda: difference(ours, theirs, pairs))


def against(key: str, run: Callable[[], Any], peer: float, device: torch.device, end: float, work: float | None) -> dict[str, Any]:
    """A contest's figures; `peer` is what Hugging Face takes for the passes that it is measured in."""
    timing = timed(run, device, end)
    ratio = peer / timing.steady if key == "score" else timing.steady / peer
    found: dict[str, Any] = {"ratio": round(ratio, 3), "target": TARGETS[key], **timing.rounded()}
    if key in ("score", "discover", "attribute") and end - time.monotonic() > timing.steady:
        counts: Counts = counts_of(run, device)
        found |= counts._asdict()
        if key == "score":
            found["tokens_per_second"] = round(counts.tokens_computed / timing.steady)
            found["share_of_matrix_product"] = round(counts.tokens_computed * work / timing.steady, 3) if work else None
    return found


def contests(
    model: HookedRewardModel, pairs: EncodedPairs, few: EncodedPairs, share: float
) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """What is timed, and how many Hugging Face passes over all pairs its ratio is over."""
    layers, d_mlp = model.cfg.n_layers, int(model.cfg.d_mlp or 0)
    rank = torch.rand(layers, d_mlp, generator=torch.Generator().manual_seed(0))
    late = rank.clone()
    late[: 2 * layers // 3] = -1
    every = [[ZeroAblation(NeuronSet.top(rank.roll(i, 1), fraction=0.1))] for i in range(16)]
    last = [[ZeroAblation(NeuronSet.top(late.roll(i, 1), fraction=0.03))] for i in range(16)]
    single = NeuronSet.top(rank, k=min(256, rank.numel() // 32))
    yield "score", 1, partial(score, model, pairs)
    yield "discover", 1, partial(discover, model, pairs, sites=("mlp_post", "mlp_gate"))
    yield "attribute", 1, partial(attribute, model, pairs)
    yield "16 ablations, all layers", 16 * share, partial(sweep, model, few, every)
    yield "16 ablations, last third", 16 * share, partial(sweep, model, few, last)
    yield "256 single neurons", share, partial(neuron_effects, model, few, single)


def best_of(model: Any, pairs: EncodedPairs, device: torch.device, end: float, work: float | None) -> dict[str, Any]:
    """Hugging Face with length-sorted padding, in the batch size with which it is fastest."""
    runs = {most: partial(hf_rewards, model, pairs, most) for most in ((4096, 16384, 65536) if device.type == "cuda" else (512, 2048))}
    once(next(iter(runs.values())), device)
    tried = {most: min(once(run, device) for _ in range(2)) for most, run in runs.items()}
    most = min(tried, key=lambda most: tried[most])
    timing, tokens = timed(runs[most], device, end), tokens_of(pairs)
    share = round(tokens * work / timing.steady, 3) if work else None
    more = {"tokens_per_second": round(tokens / timing.steady), "share_of_matrix_product": share}
    return {**timing.rounded(), "batch_tokens": most, **more}


def hf_rewards(model: Any, pairs: EncodedPairs, most: int) -> Tensor:
    return rewards(model, pairs.rows, of_tokens(pairs.rows, most, 0))


def difference(ours: HookedRewardModel, theirs: Any, pairs: EncodedPairs) -> dict[str, float]:
    """A contest between different numbers would be worth nothing: in standard deviations of the rewards, and in raw units."""
    found, want = score(ours, pairs), hf_rewards(theirs, pairs, 4096).double()
    sides = ((found.chosen, pairs.chosen), (found.rejected, pairs.rejected))
    most = max(float((torch.tensor(side) - want[list(index)]).abs().max()) for side, index in sides)
    return {"raw": round(most, 5), "in_standard_deviations": round(most / float(want.std()), 4)}


def random_model(shape: Shape, device: torch.device) -> LlamaForSequenceClassification:
    config = LlamaConfig(
        vocab_size=257, hidden_size=shape.d_model, intermediate_size=shape.d_mlp, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.d_head, pad_token_id=0,
        max_position_embeddings=4096,
    )  # fmt: skip
    config.num_labels = 1
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
    """Every fourth byte of a text as a token: about as many as a tokenizer of words makes, and beginnings that are shared stay so.

    Where there are fewer pairs, they come again with other tokens, which share nothing with the first.
    """
    texts = encode_for(model, load_pairs(source, split="test", limit=count, on_bad="drop"), max_length=4096)
    short = [Row(row.ids[3::4] or row.ids[-1:], row.response_start // 4) for row in texts.rows]
    times = range(-(-count // len(texts.pairs)))
    rows = [Row(tuple((token + time) % 257 for token in row.ids), row.response_start) for time in times for row in short]
    pairs = [replace(pair, id=f"{pair.id}-{time}") for time in times for pair in texts.pairs][:count]
    chosen, rejected = ([i + time * len(short) for time in times for i in side][:count] for side in (texts.chosen, texts.rejected))
    return first_of(EncodedPairs(tuple(pairs), tuple(rows), tuple(chosen), tuple(rejected), Reading(count)), count)


def first_of(pairs: EncodedPairs, count: int) -> EncodedPairs:
    used = sorted({*pairs.chosen[:count], *pairs.rejected[:count]})
    chosen, rejected = (tuple(used.index(i) for i in side[:count]) for side in (pairs.chosen, pairs.rejected))
    return EncodedPairs(pairs.pairs[:count], tuple(pairs.rows[i] for i in used), chosen, rejected, Reading(count))


def tokens_of(pairs: EncodedPairs) -> int:
    return sum(len(row.ids) for row in pairs.rows)


def weights_of(shape: Shape) -> int:
    attention = shape.d_model * shape.d_head * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.d_model * shape.d_mlp)


def matrix_product_peak(shape: Shape, device: torch.device) -> float:
    """Operations a second of the matrix product that the model spends most on: the best of five, of ten products each."""
    rows = 8192 if device.type == "cuda" else 256
    x, w = (torch.randn(n, shape.d_model, dtype=torch.bfloat16, device=device) for n in (rows, shape.d_mlp))
    best = min(once(lambda: [torch.nn.functional.linear(x, w) for _ in range(10)], device) for _ in range(5))
    return 20 * rows * shape.d_model * shape.d_mlp / best


def show(report: dict[str, Any]) -> None:
    """The rows of the table in docs/performance.md."""
    print("\n| shape | what | ratio | target | first, s | steady, s | calls a layer | waits a batch | peak, GiB |\n" + "|---" * 9 + "|")
    for name, figures in report["shapes"].items():
        for key, target in TARGETS.items():
            found = figures.get(key)
            if not isinstance(found, dict):
                print(f"| {name} | {key} | {found or 'not measured'} | {target} | | | | | |")
                continue
            parts = (found.get(part, "") for part in ("first", "steady", "attention_calls_a_layer", "waits_a_batch", "peak_gib"))
            print(f"| {name} | {key} | {found['ratio']} | {target} | " + " | ".join(map(str, parts)) + " |")


if __name__ == "__main__":
    with one_line_errors("gpu.py"):
        main(tyro.cli(Config, description=__doc__), psutil.Process().create_time())
