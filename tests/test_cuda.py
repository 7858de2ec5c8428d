"""Every analysis on another device equals itself on the CPU, on a tiny random model of every supported architecture.

With CUDA the device is a card. Without one it is a stand-in (`helpers.stand_in`), on which a mix of devices fails as it does on a card.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import ARCHITECTURES, hf_model
from helpers.result_values import leaves
from helpers.stand_in import DEVICE, counted, moved

import tl_reward as t
from tl_reward.analyses.tension import tension
from tl_reward.data.pairs import PreferencePair, pairs_of_row
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.running.activations import sample_activations

ROWS = [
    ("Hi", "Hello there, friend.", "No.", "helpful"),
    ("Hi", "Hello you", "Go away now", "helpful"),
    ("2+2?", "It is 4.", "It is five, I think.", "helpful"),
    ("Lie?", "Better not", "Yes", "harmless"),
]
NAMES = ("prompt", "chosen", "rejected", "objective")
PAIRS: list[PreferencePair] = [pair for i, row in enumerate(ROWS) for pair in pairs_of_row(dict(zip(NAMES, row, strict=True)), f"p:{i}")]
OPTIONS: Any = {"max_length": 300}
Model = HookedRewardModel


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def ranking(model: Model) -> torch.Tensor:
    return drawn(model.cfg.n_layers, int(model.cfg.d_mlp or 0))


def top(model: Model) -> t.NeuronSet:
    return t.NeuronSet.top(ranking(model), k=6)


def in_place(model: Model, base: Model) -> Any:
    @t.intervention(t.Site(1, "mlp_out"))
    def halved(activation: torch.Tensor) -> torch.Tensor:
        activation *= 0.5
        return activation

    return t.score(model, PAIRS, interventions=[halved], **OPTIONS)


def bank(model: Model) -> torch.Tensor:
    return drawn(8, model.cfg.n_layers, int(model.cfg.d_mlp or 0))


def within_pair(model: Model, base: Model) -> Any:
    return t.score(model, PAIRS, interventions=[t.Patch(t.Source(model), [t.Site(1, "resid_post")], within_pair=True)], **OPTIONS)


ANALYSES: dict[str, Callable[[Model, Model], Any]] = {
    "score": lambda m, b: t.score(m, PAIRS, **OPTIONS),
    "text": lambda m, b: m(["\n\nHuman: a\n\nAssistant: b", "\n\nHuman: hi\n\nAssistant: hello there you"]),
    "sweep": lambda m, b: t.sweep(m, PAIRS, [[t.ZeroAblation(top(m))], [t.ScaleAblation(top(m), 0.5)]], **OPTIONS),
    "in place": in_place,
    "discover": lambda m, b: t.discover(m, PAIRS, base=b, **OPTIONS),
    "curve": lambda m, b: t.ablation_curve(m, PAIRS, ranking(m), fractions=[0.1], draws=1, **OPTIONS),
    **{
        f"estimate {method}": lambda m, b, method=method: t.estimate(m, PAIRS, method, **OPTIONS)
        for method in ("gradient", "mean", "pair", "direct")
    },
    "integrated": lambda m, b: t.attribute(m, PAIRS, steps=2, **OPTIONS),
    "effects zero": lambda m, b: t.neuron_effects(m, PAIRS, top(m), kind="zero", **OPTIONS),
    "effects resample": lambda m, b: t.neuron_effects(m, PAIRS, top(m), kind="resample", bank=bank(m), **OPTIONS),
    "direct attribution": lambda m, b: t.direct_attribution(m, PAIRS, **OPTIONS),
    "lens": lambda m, b: t.reward_lens(m, PAIRS, **OPTIONS),
    "patch pairs": lambda m, b: t.patch_pairs(m, PAIRS, **OPTIONS),
    "patch models": lambda m, b: t.patch_models(m, b, PAIRS, ranking(m), fractions=[0.1], draws=1, **OPTIONS),
    "gain": lambda m, b: t.gain(m, b, PAIRS, **OPTIONS),
    "tension": lambda m, b: tension(m, PAIRS, **OPTIONS),
    "examples": lambda m, b: t.collect_examples(m, PAIRS, top(m), **OPTIONS),
    "bank": lambda m, b: sample_activations(m, PAIRS, "mlp_post", count=5, **OPTIONS),
    "activations": lambda m, b: t.activations(m, PAIRS, ["resid_post", "attn_z"], where="response", **OPTIONS),
    "heads": lambda m, b: t.estimate(m, PAIRS, "gradient", site="attn_z", **OPTIONS),
    "patch": within_pair,
}


def flat(result: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The numbers of a result, each with its place."""
    for place, value in leaves(result):
        if isinstance(value, torch.Tensor):
            yield place, value.detach().to("cpu", torch.float64).flatten()
        elif (isinstance(value, np.ndarray) and value.dtype.kind == "f") or isinstance(value, float):
            yield place, torch.tensor(value, dtype=torch.float64).flatten()


def differences(one: Any, other: Any, tolerance: float) -> list[str]:
    """Where two results differ by more than the tolerance, of 1 plus the first. P-values, and what is sorted by them, may jump."""
    said = []
    for (at, a), (_, b) in zip(flat(one), flat(other), strict=True):
        if a.shape != b.shape or not a.isnan().equal(b.isnan()):
            said.append(f"{at}: {list(a.shape)} and {list(b.shape)}, or another place without a number")
        elif len(a) and (apart := ((a - b).abs() / (1 + a.abs())).nan_to_num(0).max()) > tolerance:
            said.append(f"{at}: {apart:.2g}")
    return said


def made(name: str, device: str, dtype: torch.dtype = torch.float32) -> tuple[Model, Model]:
    """The model, and another of the same shape."""
    hf: Any = hf_model(name)  # torch's own `to` has other types than transformers says
    other: Any = hf_model(name)
    for parameter in other.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    one, two = (Model.from_hf(each.to(dtype), byte_tokenizer(), device=device) for each in (hf, other))
    return one, two


def compare(name: str, device: str, analysis: str, dtype: torch.dtype = torch.float32, tolerance: float = 1e-3) -> None:
    run = ANALYSES[analysis]
    said = differences(run(*made(name, "cpu")), run(*made(name, device, dtype)), tolerance)
    assert not said, said


CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.mark.parametrize("analysis", ["score", "discover"])
def test_the_comparison_itself(analysis: str):
    compare("llama", "cpu", analysis)


def test_a_difference_is_seen():
    one, other = t.score(made("llama", "cpu")[0], PAIRS), t.score(made("llama", "cpu")[1], PAIRS)
    assert any("chosen" in each for each in differences(one, other, 1e-3))


@CARD
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_card_computes_what_the_cpu_does(analysis: str, name: str):
    compare(name, "cuda", analysis)


# Rewards alone are near: what is ranked, tested or patched by 8 bits of precision may be another neuron.
@CARD
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_half_precision_on_a_card(name: str, dtype: torch.dtype):
    models = made(name, "cuda", dtype)
    for analysis, run in ANALYSES.items():
        if analysis in ("score", "text", "sweep"):
            compare(name, "cuda", analysis, dtype, tolerance=0.1)
        else:
            run(*models)


# A card that is none: tests/running/test_waits.py has the analyses on it, and here are the architectures.


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "smollm3", "olmo3-yarn"])
def test_no_architecture_mixes_devices(name: str):
    run = [ANALYSES[analysis] for analysis in ("score", "estimate gradient")]
    expected = [each(*made(name, "cpu")) for each in run]
    with counted():
        found = [each(*map(moved, made(name, "cpu"))) for each in run]
        assert differences(expected, found, 1e-3) == []


def test_the_stand_in_sees_a_mix():
    with counted() as waits:
        x = torch.arange(3).to(DEVICE)
        assert (x.device.type, (x + 1).tolist(), x.cpu().device.type) == (DEVICE, [1, 2, 3], "cpu")
        assert waits.asked.total() == 2 and waits.sent.total() == 1
        for mix in (lambda: x + torch.arange(3), lambda: torch.cat([x, torch.arange(3)])):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
