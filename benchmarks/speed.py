"""How fast is it, beside what a researcher would otherwise use? Prints ratios, and writes them to benchmarks/latest.json.

    python benchmarks/speed.py --pairs harmless-base/test.jsonl.gz

(a) scoring against Hugging Face; (b) all discovery scores against the study's procedure; (c) scoring and one cached site against plain
TransformerLens and nnsight; (d) a sweep of 16 ablations against 16 Hugging Face passes; (e) attribution to every neuron against one
forward pass. Every contestant runs in this process, on the same pairs, in turns, in the batch size that suits it best (the study's
procedure one transcript at a time); before each contest its rewards, scores or effects are checked against ours. About 25 minutes on
2 cores.
"""

import json
import platform
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import peers
import torch
import tyro
from measure import alternate, exponent, fastest, matrix_product_peak, peak_memory, ratio, seconds
from nnsight import NNsight
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.data.batches.packing import pack
from tl_reward.data.encoding import EncodedPairs, Row
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.readers import EMBEDDED, load_pairs, short_name
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, one_line_errors
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.measures.scores import Scores
from tl_reward.model import checkpoints, embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

SITE = Site(15, "mlp_post")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Config:
    pairs: str | None = None
    """Preference pairs: a file, a hub id, or "embedded". Default: Anthropic/hh-rlhf, or the embedded ones where no hub can be reached."""
    model: str = "mixed"
    """The reward model."""
    alternations: int = 5
    """Turns that each contestant gets."""
    scale: int = 1
    """Multiplies the number of pairs (16 for a, c and e; 4 for b and d)."""
    out: Path = Path(__file__).parent / "latest.json"
    """Where to write the ratios."""


@dataclass(frozen=True)
class Contestants:
    """One reward model in one precision, as ours and as Hugging Face's, on the same pairs."""

    ours: HookedRewardModel
    theirs: PreTrainedModel
    pairs: EncodedPairs
    """As many pairs as (a) takes; the others take the first of them."""

    def first(self, count: int) -> EncodedPairs:
        return encode_for(self.ours, self.pairs.pairs[:count])


@dataclass(frozen=True)
class Keep:
    """Caches one site while scores are computed: ten lines of a user's own."""

    site: Site
    kept: list[torch.Tensor]
    per_token = True

    def hooks(self, batch: Any) -> list:
        return [(self.site.hook_name, lambda activation, hook: self.kept.append(activation))]


def main(config: Config) -> None:
    console = Console()
    source, pairs = harmless_pairs(config)
    made = {name: contestants(config, pairs, dtype) for name, dtype in PRECISIONS.items()}
    single = made["float32"]
    peak = {
        name: matrix_product_peak(single.ours.cfg.d_model, int(single.ours.cfg.d_mlp or 0), dtype) for name, dtype in PRECISIONS.items()
    }
    report: dict[str, Any] = {
        "machine": {"architecture": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "data": {"source": source, "pairs": len(single.pairs.pairs), **tokens_of(single.pairs)},
        "matrix_product_gflops": {name: round(value) for name, value in peak.items()},
    }
    for letter, part in {
        "a": lambda: {name: scoring(some, config, peak[name]) for name, some in made.items()},
        "b": lambda: discovery(single, config),
        "c": lambda: cached_site(single, config),
        "d": lambda: ablations(single, config),
        "e": lambda: {name: attribution(some, config) for name, some in made.items()},
        "precision": lambda: agreement(made),
        "growth": lambda: growth(single, config),
    }.items():
        console.print(f"({letter}) …", end=" ")
        report[letter] = part()
        console.print("done")
        config.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report, console)
    console.print(f"Written to {config.out}", soft_wrap=True)


def harmless_pairs(config: Config) -> tuple[str, list[PreferencePair]]:
    """The source's name, and a sample of its harmless test pairs."""
    source = config.pairs or "Anthropic/hh-rlhf"
    try:
        pairs = load_pairs(source, objective="harmless", split="test", on_bad="drop")
    except InputError as error:
        if config.pairs is not None:
            raise
        source = EMBEDDED
        print(f"{error}\nThe embedded pairs are used instead. They share less, so that (a), (c) and (d) gain less.")
        pairs = load_pairs(source, objective="harmless", split="test")
    return short_name(source), random.Random(0).sample(pairs, min(16 * config.scale, len(pairs)))


def contestants(config: Config, pairs: list[PreferencePair], dtype: torch.dtype) -> Contestants:
    source = embedded.ADAPTERS / config.model if config.model in embedded.REWARD_MODELS else config.model
    checkpoint = checkpoints.load_reward_model(source, base=None, dtype=dtype, hub={})
    ours = HookedRewardModel.from_hf(checkpoint.model, checkpoint.tokenizer)
    return Contestants(ours, checkpoint.model.eval(), encode_for(ours, pairs))


def tokens_of(pairs: EncodedPairs) -> dict[str, int]:
    computed = sum(batch.tokens.numel() for batch in pack(pairs.rows, max_tokens=1024))
    return {"tokens": sum(len(row.ids) for row in pairs.rows), "tokens_computed": computed}


def best_size(run: Callable[[Any, int], Any], rows: Any) -> int:
    """The batch size with which a peer is fastest, on every other row."""
    return fastest(lambda size: run(rows[::2], size), (1, 2, 4, 8, 16))


def scoring(some: Contestants, config: Config, peak: float) -> dict[str, Any]:
    """(a) The rewards of all pairs."""
    rows = some.pairs.rows
    size = best_size(partial(peers.hugging_face, some.theirs), rows)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: score(some.ours, some.pairs),
        "Hugging Face": lambda: peers.hugging_face(some.theirs, rows, size),
    }
    check(score(some.ours, some.pairs), peers.hugging_face(some.theirs, rows, size), some.pairs, some.ours.cfg.dtype)
    taken = alternate(works, config.alternations)
    weights = sum(p.numel() for name, p in some.theirs.named_parameters() if "embed" not in name)
    count = tokens_of(some.pairs)
    share = {
        name: round(2e-9 * weights * tokens / min(taken[name]) / peak, 3)
        for name, tokens in (("ours", count["tokens_computed"]), ("Hugging Face", count["tokens"]))
    }
    goal = ">= 1.3" if some.ours.cfg.dtype == torch.float32 else ">= 1.2"
    return {
        "Hugging Face / ours": ratio(taken["Hugging Face"], taken["ours"], goal),
        "tokens_per_second": {name: round(count["tokens"] / min(values)) for name, values in taken.items()},
        "share_of_matrix_product_peak": share,
        "peak_gib": {name: round(peak_memory(work), 3) for name, work in works.items()},
        "peer_batch_size": size,
    }


def discovery(some: Contestants, config: Config) -> dict[str, Any]:
    """(b) mean, abs_mean, rms, probability and change at two sites, against three of them at one."""
    pairs = some.first(4 * config.scale)
    chosen, rejected = ([pairs.rows[i] for i in index] for index in (pairs.chosen, pairs.rejected))
    base = HookedRewardModel.from_base(embedded.BASE)
    hf_base = checkpoints.load_with_fresh_head(embedded.BASE, seed=0, dtype=torch.float32, hub={}).model.eval()
    found = discover(some.ours, pairs, base=base)
    for name, value in peers.study(some.theirs, hf_base, chosen, rejected, 1).items():
        torch.testing.assert_close(found.ranking(name, "mlp_gate"), value, atol=2e-3, rtol=1e-2)
    works = {
        "ours": lambda: discover(some.ours, pairs, base=base),
        "study": lambda: peers.study(some.theirs, hf_base, chosen, rejected, 1),
    }
    taken = alternate(works, config.alternations)
    return {
        "study / ours": ratio(taken["study"], taken["ours"], ">= 10"),
        "peak_gib": {name: round(peak_memory(work), 3) for name, work in works.items()},
    }


def cached_site(some: Contestants, config: Config) -> dict[str, Any]:
    """(c) Rewards, and the activations of one layer's neurons."""
    rows, plain, traced = some.pairs.rows, peers.plain_transformer_lens(some.ours), NNsight(some.theirs)
    lens_size = best_size(partial(peers.transformer_lens, plain, hook_name=SITE.hook_name), rows)
    sight_size = best_size(partial(peers.nnsight, traced, layer=SITE.layer), rows)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: score(some.ours, some.pairs, interventions=[Keep(SITE, [])]),
        "TransformerLens": lambda: peers.transformer_lens(plain, rows, lens_size, SITE.hook_name),
        "nnsight": lambda: peers.nnsight(traced, rows, sight_size, SITE.layer),
    }
    for name in ("TransformerLens", "nnsight"):
        check(works["ours"](), works[name]()[0], some.pairs, some.ours.cfg.dtype)
    taken = alternate(works, config.alternations)
    return {
        "TransformerLens / ours": ratio(taken["TransformerLens"], taken["ours"], ">= 2"),
        "nnsight / ours": ratio(taken["nnsight"], taken["ours"], "none set"),
        "peak_gib": {name: round(peak_memory(work), 3) for name, work in works.items()},
        "peer_batch_sizes": {"TransformerLens": lens_size, "nnsight": sight_size},
    }


def ablations(some: Contestants, config: Config) -> dict[str, Any]:
    """(d) 16 sets of a tenth of the neurons, in all layers and in the last third, against 16 clean Hugging Face passes."""
    pairs, cfg = some.first(4 * config.scale), some.ours.cfg
    size = best_size(partial(peers.hugging_face, some.theirs), pairs.rows)
    every = conditions(0, cfg, 16)
    check(sweep(some.ours, pairs, every)[7], peers.pruned(some.theirs, pairs.rows, size, every[7][0].neurons), pairs, cfg.dtype)
    works: dict[str, Callable[[], Any]] = {
        "all layers": lambda: sweep(some.ours, pairs, every),
        "last third": lambda: sweep(some.ours, pairs, conditions(2 * cfg.n_layers // 3, cfg, 16)),
        "16 Hugging Face passes": lambda: [peers.hugging_face(some.theirs, pairs.rows, size) for _ in range(16)],
    }
    taken = alternate(works, config.alternations)
    return {
        "all layers / 16 Hugging Face passes": ratio(taken["all layers"], taken["16 Hugging Face passes"], "<= 0.75"),
        "last third / 16 Hugging Face passes": ratio(taken["last third"], taken["16 Hugging Face passes"], "<= 0.4"),
        "peak_gib": {name: round(peak_memory(work), 3) for name, work in works.items() if "16" not in name},
        "peer_batch_size": size,
    }


def conditions(first_layer: int, cfg: Any, count: int) -> list[list[ZeroAblation]]:
    draw = random.Random(0)
    places = [(layer, neuron) for layer in range(first_layer, cfg.n_layers) for neuron in range(cfg.d_mlp)]
    return [[ZeroAblation(NeuronSet(draw.sample(places, len(places) // 10)))] for _ in range(count)]


def attribution(some: Contestants, config: Config) -> dict[str, Any]:
    """(e) Every neuron's effect on the margin, to first order, against our own forward pass: the fastest one here."""
    if some.ours.cfg.dtype == torch.float32:
        few = some.first(2)
        sides = ([few.rows[i] for i in index] for index in (few.chosen, few.rejected))
        torch.testing.assert_close(
            attribute(some.ours, few).effect, peers.gradient_times_activation(some.theirs, *sides), atol=1e-4, rtol=1e-2
        )
    works: dict[str, Callable[[], Any]] = {
        "attribution": lambda: attribute(some.ours, some.pairs),
        "forward pass": lambda: score(some.ours, some.pairs),
    }
    taken = alternate(works, config.alternations)
    return {
        "attribution / forward pass": ratio(taken["attribution"], taken["forward pass"], "<= 4"),
        "neurons": attribute(some.ours, some.pairs).effect.numel(),
        "peak_gib": {name: round(peak_memory(work), 3) for name, work in works.items()},
    }


def agreement(made: dict[str, Contestants]) -> dict[str, float]:
    """What bfloat16 costs, on the same pairs."""
    full, half = (score(made[name].ours, made[name].pairs) for name in PRECISIONS)
    return {
        "largest_reward_difference": round(float(abs(full.chosen - half.chosen).max()), 4),
        "reward_standard_deviation": round(float(full.chosen.std()), 4),
        "margins_of_another_sign": int(((full.margin > 0) != (half.margin > 0)).sum()),
        "pairs": len(full),
    }


def growth(some: Contestants, config: Config) -> dict[str, Any]:
    """How time grows, as the exponent of a power law: the best of three runs at each size."""
    model, cfg = some.ours, some.ours.cfg
    ids = [token for row in some.pairs.rows for token in row.ids]
    tokens = torch.tensor(ids[:1024])[None]
    few = some.first(2)

    def text(length: int) -> EncodedPairs:
        rows = tuple(Row(tuple(ids[start : start + length]), 0) for start in range(0, 1024, length))
        pairs = some.pairs.pairs[: len(rows) // 2]
        return EncodedPairs(pairs, rows, tuple(range(0, len(rows), 2)), tuple(range(1, len(rows), 2)), Reading(len(pairs)))

    fewer = {tokens_of(pairs)["tokens_computed"]: pairs for pairs in map(some.first, (2, 4, 8, 16))}
    lengths = {length: text(length) for length in (64, 128, 256, 512)}
    layers = (cfg.n_layers // 6, cfg.n_layers // 3, 2 * cfg.n_layers // 3, cfg.n_layers)
    sweeps = {count: conditions(0, cfg, count) for count in (1, 2, 4, 8)}
    studies: dict[str, dict[int, Callable[[], Any]]] = {
        "tokens of more pairs": {size: partial(score, model, pairs) for size, pairs in fewer.items()},
        "length, at 1,024 tokens in all": {size: partial(score, model, pairs) for size, pairs in lengths.items()},
        "layers": {size: partial(model, tokens, None, stop_at_layer=size) for size in layers},
        "conditions": {size: partial(sweep, model, few, swept) for size, swept in sweeps.items()},
    }
    report = {}
    with torch.inference_mode():
        for name, runs in studies.items():
            times = [min(seconds(run) for _ in range(3)) for run in runs.values()]
            report[name] = {"sizes": [*runs], "seconds": [round(value, 3) for value in times], "exponent": exponent([*runs], times)}
    return report


def check(scores: Scores, rewards: torch.Tensor, pairs: EncodedPairs, dtype: torch.dtype) -> None:
    """A contest between different numbers would be worth nothing. In bfloat16 both are a few hundredths off the float32 rewards."""
    atol = 1e-3 if dtype == torch.float32 else 0.2
    for side, index in ((scores.chosen, pairs.chosen), (scores.rejected, pairs.rejected)):
        torch.testing.assert_close(torch.tensor(side), rewards[list(index)].double(), atol=atol, rtol=1e-3)


def show(report: dict[str, Any], console: Console) -> None:
    table = Table("", "ratio", "lowest", "highest", "target")
    for letter in "abcde":
        parts = report[letter] if any("/" in name for name in report[letter]) else {}
        nested = {f"{name}, {kind}": value for kind, part in report[letter].items() if kind in PRECISIONS for name, value in part.items()}
        for name, value in (parts | nested).items():
            if isinstance(value, dict) and "ratio" in value:
                table.add_row(f"({letter}) {name}", f"{value['ratio']:.2f}", f"{value['low']:.2f}", f"{value['high']:.2f}", value["target"])
    console.print(table)
    for name in PRECISIONS:
        shares = ", ".join(f"{who} {share:.0%}" for who, share in report["a"][name]["share_of_matrix_product_peak"].items())
        console.print(f"Share of the matrix product's {report['matrix_product_gflops'][name]} GFLOP/s, {name}: {shares}")
    for name, value in report["growth"].items():
        console.print(f"Growth with {name}: exponent {value['exponent']}")


if __name__ == "__main__":
    with one_line_errors("speed.py"):
        main(tyro.cli(Config, description=__doc__))
