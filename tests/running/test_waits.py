"""How often a pass waits for its device: a small number of times a batch, whatever the number of layers. On a stand-in for a GPU, which
also refuses tensors of two devices in one call; and where there is a GPU, on it."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.short_pairs import SHORT_PAIRS
from helpers.stand_in import counted, moved
from torch import Tensor
from transformers import AutoModelForSequenceClassification

import tl_reward
from tl_reward import devices
from tl_reward.analyses import pair_patching
from tl_reward.analyses.pair_patching import PatchedPlace
from tl_reward.analyses.tension import tension
from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.batches.padding import TokenBatch
from tl_reward.devices import WideSums
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from tl_reward.interventions.patches import HeadPatch, Patch, Source, patch_between
from tl_reward.interventions.path_patches import PathPatch
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import sample_activations, stream
from tl_reward.running.batches.batching import encode_for
from tl_reward.sites import Site

PAIRS = SHORT_PAIRS


def model_of(layers: int, seed: int = 0) -> HookedRewardModel:
    config = tiny_hf_model().config
    config.num_hidden_layers = layers
    torch.manual_seed(seed)
    return HookedRewardModel.from_hf(AutoModelForSequenceClassification.from_config(config).eval(), byte_tokenizer(), device="cpu")


class Case(NamedTuple):
    """What a case runs on: two models of one shape, with the pairs and the options of a run."""

    model: HookedRewardModel
    other: HookedRewardModel
    pairs: list[Any]
    options: dict[str, Any]

    @property
    def ends(self) -> NeuronSet:
        """Neurons of the first and of the last layer."""
        last = self.model.cfg.n_layers - 1
        return NeuronSet([(0, 3), (0, 9), (last, 7)])


@dataclass(frozen=True)
class Padded:
    """Changes nothing, and states nothing, so that batches are padded."""

    def hooks(self, batch: Any) -> list[Any]:
        return []


def margins(found: list[tl_reward.Scores]) -> list[np.ndarray]:
    return [scores.margin for scores in found]


def swept(case: Case) -> Any:
    cfg = case.model.cfg
    values = torch.linspace(-1, 1, 4 * cfg.n_layers * int(cfg.d_mlp or 0)).view(4, cfg.n_layers, -1)
    edits = [
        ZeroAblation(case.ends),
        ScaleAblation(case.ends, 0.5),
        MeanAblation(case.ends, values[0]),
        ResampleAblation(case.ends, values),
    ]
    return margins(tl_reward.sweep(case.model, case.pairs, [(), *([edit] for edit in edits)], **case.options))


def patched(case: Case) -> Any:
    source, between = Source(case.model), patch_between(case.model, case.other)
    first, last = Site(0, "mlp_out"), case.model.cfg.n_layers - 1
    edits = [Patch(source, [first], where=-1, within_pair=True), Patch(source, case.ends, where="response", within_pair=True)]
    edits += [PathPatch(case.model, source, first, through=last, within_pair=True)]
    edits += [PathPatch(case.model, source, NeuronSet([(0, 1)]), within_pair=True)]
    apart = tl_reward.sweep(case.model, case.pairs, [[Patch(between, case.ends)], [HeadPatch(case.other)]], **case.options)
    return margins([*tl_reward.sweep(case.model, case.pairs, [[edit] for edit in edits], **case.options), *apart])


def estimated_patches(case: Case) -> Any:
    cells = [PatchedPlace("mlp_out", at, layer) for at in ("all", -1) for layer in (0, case.model.cfg.n_layers - 1)]
    sets, encoded = [PatchedPlace("mlp_post", "all", None)], encode_for(case.model, case.pairs)
    return [*pair_patching._estimate(case.model, encoded, cells, sets, case.ends, progress=None, **case.options)]


def discovered(case: Case) -> Any:
    found = tl_reward.discover(case.model, case.pairs, base=case.other, **case.options)
    return [
        *found.by_side.values(),
        *found.firing.values(),
        *(each.welch_t for each in found.contrast.values()),
        *(each.auroc for each in found.contrast.values()),
    ]


def attributed(**how: Any) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        options = {name: case.other if value == "other" else value for name, value in how.items()}
        found = tl_reward.attribute(case.model, case.pairs, **options, **case.options)
        return [found.effect, found.error]

    return run


def tense(case: Case) -> Any:
    return [each.effect for each in tension(case.model, case.pairs, method="mean", **case.options).effects.values()]


def examples(where: Any) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        found = tl_reward.collect_examples(case.model, case.pairs, case.ends, where=where, **case.options)
        return [found.scores.margin, found.top_peak, found.activation.float(), found.correlation, found.count.sum(2)]

    return run


def lens(case: Case) -> Any:
    found = tl_reward.reward_lens(case.model, case.pairs, **case.options)
    return [found.margins(), *(curve.chosen for curve in found.curves)]


def held(where: Any) -> Callable[[Case], Any]:
    def run(case: Case) -> Any:
        found = tl_reward.activations(case.model, case.pairs, ["mlp_post", "attn_z"], where=where, **case.options)
        return [found.scores.margin, *found.values.values()]

    return run


def direct(case: Case) -> Any:
    found = tl_reward.direct_attribution(case.model, case.pairs, **case.options)
    return [found.neuron, found.head, found.embedding, found.bias, found.reward]


class Bound(NamedTuple):
    """An analysis, and how often each of its batches waits, at most, until the device has computed something; and how many copies it sends
    there, which from pinned memory wait for nothing."""

    run: Callable[[Case], Any]
    asks: int
    sends: int
    padded: bool = False


CASES = {
    "score": Bound(lambda case: margins([tl_reward.score(case.model, case.pairs, **case.options)]), 3, 5),
    # Of its conditions, each that begins at the first layer reads tokens, whose ids are looked at.
    "sweep": Bound(swept, 3 + 7, 5 + 4),
    "effects": Bound(lambda case: tl_reward.neuron_effects(case.model, case.pairs, case.ends, **case.options).margin, 3 + 3, 5 + 2),
    "patches": Bound(patched, 10, 8),
    "discover": Bound(discovered, 4, 15),
    "attribute": Bound(attributed(), 3, 8),
    "attribute, heads, integrated": Bound(attributed(site="attn_z", steps=2, where="response"), 3, 8),
    "attribute, against a pair": Bound(attributed(baseline="pair"), 4, 11),
    "attribute, against a model": Bound(attributed(baseline="other"), 6, 8),
    "attribute, padded": Bound(attributed(), 8, 14, padded=True),
    "tension": Bound(tense, 4, 15),
    "estimates of patches": Bound(estimated_patches, 5, 11),
    "direct attribution": Bound(direct, 4, 8),
    "lens": Bound(lens, 4, 9),
    "lens, padded": Bound(lens, 6, 12, padded=True),
    "examples": Bound(examples("response"), 6, 20),
    "examples, all tokens": Bound(examples("all"), 6, 20),
    "activations": Bound(held("readout"), 6, 9),
    "activations, of responses": Bound(held("response"), 6, 12),
    "bank": Bound(lambda case: [sample_activations(case.model, case.pairs, "mlp_gate", **case.options)], 3, 7),
}
LAYERS = {"discover": 8, "attribute": 8}  # the others are shown with 5
# Where the queries and keys of a packed batch are, for attention (`data.batches.layouts`): 3, and 4 for each call of a layer.
LAYOUT = 3 + 4
FEW, MANY = {"max_tokens": 1000}, {"max_tokens": 80}


def flat(found: Any) -> list[Tensor]:
    return [each if isinstance(each, Tensor) else torch.as_tensor(each) for each in found]


class Seen(NamedTuple):
    batches: int
    asked: Counter[str]
    sent: Counter[str]
    found: list[Tensor]


@pytest.fixture
def batches_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those that went to a device."""
    made: list[Any] = []
    for kind in (PackedBatch, TokenBatch):

        def to(self: Any, device: Any, own: Any = kind.to) -> Any:
            made.append(self)
            return own(self, device)

        monkeypatch.setattr(kind, "to", to)
    return made


def on_stand_in(name: str, layers: int, options: dict[str, Any], made: list[Any]) -> Seen:
    with counted() as waits:
        case = Case(moved(model_of(layers)), moved(model_of(layers, 1)), PAIRS, options)
        waits.asked.clear()
        waits.sent.clear()
        made.clear()
        found = flat(CASES[name].run(case))
    return Seen(len(made), waits.asked, waits.sent, found)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_waits_a_few_times_whatever_the_number_of_layers(name: str, batches_made: list[Any]):
    bound = CASES[name]
    extra: dict[str, Any] = {"interventions": [Padded()]} if bound.padded else {}
    one, many, deep = (
        on_stand_in(name, layers, {**size, **extra}, batches_made) for layers, size in ((2, FEW), (2, MANY), (LAYERS.get(name, 5), MANY))
    )
    expected = flat(bound.run(Case(model_of(2), model_of(2, 1), PAIRS, {**MANY, **extra})))
    for ours, theirs in zip(many.found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert deep.batches == many.batches > one.batches
    assert (many.asked, many.sent) == (deep.asked, deep.sent)
    assert many.asked.total() - one.asked.total() <= bound.asks * (many.batches - one.batches)
    sends = bound.sends + (0 if bound.padded else LAYOUT)
    assert many.sent.total() - one.sent.total() <= sends * (many.batches - one.batches)
    # Besides batches, what was found comes back once.
    assert one.asked.total() <= 60 + bound.asks * one.batches


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device; the stand-in above counts without one")
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_is_waited_for_a_few_times_a_batch(name: str, batches_made: list[Any]):
    bound = CASES[name]
    extra: dict[str, Any] = {"interventions": [Padded()]} if bound.padded else {}

    def waits(layers: int, size: dict[str, Any]) -> tuple[int, int]:
        case = Case(model_of(layers).to("cuda"), model_of(layers, 1).to("cuda"), PAIRS, {**size, **extra})
        bound.run(case)  # kernels are loaded, tables made long enough
        batches_made.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                bound.run(case)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(each.message) for each in caught), len(batches_made)

    (one, few), (many, batches), (deep, _) = waits(2, FEW), waits(2, MANY), waits(8, MANY)
    assert many == deep
    assert many - one <= (bound.asks + 4) * (batches - few)


def test_what_is_not_finite_is_named_at_the_end_of_the_batch_with_the_first_site_and_the_pairs():
    broken = model_of(2)
    (token,) = byte_tokenizer().encode("?")  # of one prompt alone
    broken.W_E.data[token] = float("nan")
    told: list[Site] = []
    sites = [Site(layer, "mlp_post") for layer in range(2)]
    with counted():
        moved(broken)
        with pytest.raises(InputError, match=r"blocks.0.mlp.hook_post is not finite for 1 pairs: helpful:2$"):
            stream(broken, PAIRS, sites, lambda site, *_: told.append(site))
    assert told == sites  # the device was asked after the last


def test_an_error_that_comes_of_what_is_not_finite_gives_way_to_what_says_so(tiny: HookedRewardModel):
    @tl_reward.intervention(Site(0, "mlp_post"), per_token=True)
    def infinite(activation: Tensor) -> Tensor:
        return activation / 0

    def index(site: Site, activation: Tensor, *_: Any) -> None:
        assert activation.isfinite().all(), "a user's own check"

    with pytest.raises(InputError, match=r"blocks.0.mlp.hook_post is not finite for 4 pairs"):
        stream(tiny, PAIRS, [Site(0, "mlp_post")], index, interventions=[infinite])


def test_large_finite_values_are_no_error(tiny: HookedRewardModel):
    @tl_reward.intervention(Site(0, "mlp_post"), per_token=True)
    def large(activation: Tensor) -> Tensor:
        return torch.full_like(activation, 3e38)  # whose sum is none of float32's

    seen: list[Site] = []
    stream(tiny, PAIRS, [Site(0, "mlp_post")], lambda site, *_: seen.append(site), interventions=[large])
    assert seen


def test_sums_of_float32_pairs_are_those_of_float64(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    values = torch.randn(20_000, 3) * torch.tensor([1.0, 1e4, 1e-4])
    plain = WideSums(2, 3)
    monkeypatch.setattr(devices, "widest", lambda device: torch.float32)
    pairs = WideSums(2, 3)
    assert pairs.dtype == torch.float32
    for part in values.split(10):
        for sums in (plain, pairs):
            sums.add(1, part[0].to(sums.dtype))
            sums.add_each(0, part[1:].to(sums.dtype))
    single = values[::10].cumsum(0)[-1]
    error = (pairs.total()[1] - plain.total()[1]).abs()
    assert pairs.total().dtype == torch.float64
    assert (error <= 1e-12 * values.abs().sum(0)).all() and (error < (single - plain.total()[1]).abs() / 100).all()
    torch.testing.assert_close(pairs.total()[0], plain.total()[0], rtol=1e-6, atol=1e-3)
