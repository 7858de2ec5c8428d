"""Several outputs: every function gives of one, or of weights over them, what it gives of a model with that output alone."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.result_values import leaves
from helpers.several_outputs import of_one, with_outputs
from helpers.short_pairs import SHORT_PAIRS
from model.test_head_layouts import gated, load, short_prompt_end, write
from torch import Tensor
from transformers import AutoModelForSequenceClassification, GPT2Config

import tl_reward
from tl_reward.analyses.examples.identity import content_hash
from tl_reward.errors import InputError
from tl_reward.interventions.patches import HeadPatch, Patch, Source, patch_between
from tl_reward.model.heads.chosen import name_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.gradients import backpropagate
from tl_reward.sites import Site

SET = NeuronSet([(0, 3), (1, 7)])
RANKING = torch.randn(2, 48, generator=torch.Generator().manual_seed(0))
FOUND = SHORT_PAIRS

Run = Callable[..., Any]


class Gradients:
    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def begin(self, batch: Any) -> None: ...

    def layer(self, site: Site, excess: Tensor, gradient: Tensor) -> None:
        self.found.append(gradient.clone())

    def end(self) -> None: ...

    def merge(self) -> None: ...


def gradients(model: HookedRewardModel, **options: Any) -> list[Tensor]:
    seen = Gradients()
    backpropagate(model, FOUND, [Site(0, "mlp_post"), Site(1, "attn_z")], seen, **options)
    return seen.found


def swept(model: HookedRewardModel, other: HookedRewardModel, **options: Any) -> Any:
    within = [Patch(Source(model), [Site(0, "mlp_out")], within_pair=True)]
    apart = tl_reward.sweep(model, FOUND, [within], **options)
    between = [[Patch(patch_between(model, other), SET)], [HeadPatch(other)], [tl_reward.ZeroAblation(SET)]]
    return [apart, tl_reward.sweep(model, FOUND, [(), *between], **options)]


# What each function gives, of a model and another one of its shape.
CASES: dict[str, Run] = {
    "score": lambda model, other, **o: tl_reward.score(model, FOUND, **o),
    "sweep": swept,
    "activations": lambda model, other, **o: tl_reward.activations(model, FOUND, ["mlp_post"], **o),
    "backpropagate": lambda model, other, **o: gradients(model, **o),
    "attribute": lambda model, other, **o: [
        tl_reward.attribute(model, FOUND, **how, **o)
        for how in ({}, {"baseline": "pair"}, {"baseline": other}, {"steps": 2, "site": "attn_z"}, {"where": "response"})
    ],
    "estimate": lambda model, other, **o: [tl_reward.estimate(model, FOUND, method, **o) for method in ("mean", "direct")],
    "direct_attribution": lambda model, other, **o: tl_reward.direct_attribution(model, FOUND, **o),
    "token_attribution": lambda model, other, **o: tl_reward.token_attribution(model, "What is tea?", output=o.get("output")),
    "reward_lens": lambda model, other, **o: tl_reward.reward_lens(model, FOUND, **o),
    "collect_examples": lambda model, other, **o: tl_reward.collect_examples(model, FOUND, SET, **o),
    "tension": lambda model, other, **o: tl_reward.tension(model, FOUND, **o),
    "ablation_curve": lambda model, other, **o: tl_reward.ablation_curve(model, FOUND, RANKING, fractions=(0.1,), draws=1, **o),
    "ablate_sets": lambda model, other, **o: tl_reward.ablate_sets(model, FOUND, {"a": SET}, draws=1, **o),
    "set_effects": lambda model, other, **o: tl_reward.set_effects(model, FOUND, {"a": SET}, **o),
    "neuron_effects": lambda model, other, **o: tl_reward.neuron_effects(model, FOUND, SET, **o),
    "compare_with_exact": lambda model, other, **o: tl_reward.compare_with_exact(model, FOUND, {"gradient": RANKING}, top=2, random=3, **o),
    "patch_pairs": lambda model, other, **o: tl_reward.patch_pairs(model, FOUND, neurons=SET, **o),
    "patch_models": lambda model, other, **o: tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, **o),
    "gain": lambda model, other, **o: tl_reward.gain(model, other, FOUND, **o),
    "compare_gain_with_exact": lambda model, other, **o: tl_reward.compare_gain_with_exact(
        model, other, FOUND, {"gradient": RANKING}, top=2, random=3, **o
    ),
}
__all__ = ["short_prompt_end"]
# These read activations, and no reward.
UNNAMED = {"backpropagate", "token_attribution"}  # tensors and one text, which are kept in no run
WITHOUT = {"discover", "stream", "sample_activations", "encode_for"}
CHOICES = {"an index": (1, (0.0, 1.0, 0.0)), "weights": ({"helpfulness": 0.65, "verbosity": -0.2}, (0.65, 0.0, -0.2))}


def outputs_in(value: Any) -> Iterator[str]:
    """What the scores and attributions of a result say of which output they are; "" is none."""
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            inner = getattr(value, each.name)
            yield from [inner] if each.name == "output" else outputs_in(inner)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from outputs_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from outputs_in(each)


def agree(ours: Any, theirs: Any, tolerance: float) -> int:
    compared = 0
    for (place, one), (also, other) in zip(leaves(ours, without=("output",)), leaves(theirs, without=("output",)), strict=True):
        assert place == also
        if isinstance(one, (Tensor, np.ndarray, float)):
            one, other = (torch.as_tensor(each).double() for each in (one, other))
            close = torch.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
            assert bool(close.all()), (place, (one - other).abs().max())
            compared += one.numel()
        elif not isinstance(one, NeuronSet) or tolerance == 0:
            assert one == other, place
    return compared


def test_all_functions_are_here():
    public = {name: getattr(tl_reward, name) for name in tl_reward.__all__}
    running = {name for name, value in public.items() if inspect.isfunction(value) and "model" in inspect.signature(value).parameters}
    running = {name for name in running if not name.startswith(("record_", "check_", "sets_of", "neurons_to_show", "ranking_of"))}
    running -= {"discovery_of", "patch_between"}
    running -= {"repair", "export", "with_gates"}  # tests/repairing/test_repair.py; of weights alone
    assert running <= CASES.keys() | WITHOUT, running - CASES.keys() - WITHOUT


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", CASES)
def test_an_output_is_a_model_of_that_output_alone(name: str, choice: str):
    output, weights = CHOICES[choice]
    several, other = with_outputs(), with_outputs(1)
    if name == "sweep":
        other.output = output  # a head that is patched in says itself what it reads
    found = CASES[name](several, other, output=output)
    assert agree(found, CASES[name](of_one(weights), of_one(weights, 1)), 2e-6) > 0
    assert several.output is None
    told = {each for each in outputs_in(found) if each}
    assert told <= {name_of(output, several.outputs)} and (told or name in UNNAMED), told
    several.output = output
    assert agree(CASES[name](several, other), found, 0) > 0


def test_nothing_runs_before_an_output_is_chosen(monkeypatch: pytest.MonkeyPatch):
    model, other = with_outputs(), with_outputs(1)
    tl_reward.discover(model, FOUND)  # activations are of no output
    tl_reward.stream(model, FOUND, [Site(0, "mlp_post")], lambda *_: None)
    monkeypatch.setattr(HookedRewardModel, "forward", None)
    for name, run in CASES.items():
        with pytest.raises(InputError, match=r"^say which output is the reward, with output= .*3 outputs: helpfulness, safety, verbosity$"):
            run(model, of_one([1, 0, 0], 1) if name == "sweep" else other)


def test_the_setting_is_back_after_an_error():
    model = with_outputs()
    model.output = "safety"
    with pytest.raises(InputError, match=r"no output 'helpful'; did you mean helpfulness\?"):
        tl_reward.score(model, FOUND, output="helpful")
    with pytest.raises(InputError, match="at least one estimate"):
        tl_reward.compare_gain_with_exact(model, with_outputs(1), FOUND, {}, output="verbosity")
    assert model.output == "safety"
    assert tl_reward.score(deepcopy(model), FOUND).output == "safety"  # a copy in half precision is read alike
    model.output = None
    with pytest.raises(InputError, match="say which output is the reward"):
        tl_reward.score(model, FOUND)


def test_what_was_computed_of_another_output_is_not_used_again(tmp_path: Path):
    model = with_outputs()
    scores = {name: tl_reward.score(model, FOUND, output=name) for name in ("safety", "helpfulness")}
    alone = tl_reward.score(of_one([1, 0, 0]), FOUND)
    for clean, says in ((scores["safety"], "the output safety"), (alone, "a model without a choice of outputs")):
        with pytest.raises(InputError, match=rf"^clean must be the scores of the output helpfulness, got those of {says}$"):
            tl_reward.ablate_sets(model, FOUND, {"a": SET}, clean=clean, output="helpfulness")
    part = scores["helpfulness"].take([0, 1, 2, 3])
    assert tl_reward.ablate_sets(model, FOUND, {"a": SET}, draws=0, clean=part, output="helpfulness").clean.output == "helpfulness"
    state = tmp_path / "state"
    tl_reward.collect_examples(model, FOUND, SET, saved=state, output="safety")
    with pytest.raises(InputError, match=r"a saved state of something else \(other output\)"):
        tl_reward.collect_examples(model, FOUND, SET, saved=state, output="helpfulness")
    hashes = {content_hash(HeadPatch(other)) for other in heads()}
    assert len(hashes) == 2


def test_a_source_is_read_by_the_name_of_an_output():
    """The third of one head is not the third of another whose names are in another order."""
    model, other = with_outputs(), with_outputs(1)
    other.outputs = ("safety", "verbosity", "helpfulness")
    for output in (2, "verbosity", [0, 0, 1], {"verbosity": 1.0}):
        found = tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, output=output)
        assert found.curve.clean.output == found.source.output == "verbosity"
        assert found.source.chosen.tolist() == tl_reward.score(other, FOUND, output=1).chosen.tolist()
    weighted = tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, output=[0.5, 0, -1])
    assert weighted.source.chosen.tolist() == tl_reward.score(other, FOUND, output=[0, -1, 0.5]).chosen.tolist()
    with pytest.raises(InputError, match=r"^the source: say which output is the reward"):
        tl_reward.patch_models(of_one([1, 0, 0]), other, FOUND, RANKING)


def test_a_gate_says_nothing_of_how_a_source_is_read_beside_a_chosen_output(tmp_path: Path, short_prompt_end: None):
    model, other = load(write(tmp_path / "one", gated())), load(write(tmp_path / "other", gated()))
    other.W_U.data += 0.1
    for output, expected in ((None, ""), ("output 1", "output 1"), ("score", "")):
        found = tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, output=output)
        assert found.source.output == expected
        own = tl_reward.score(other, FOUND, output=output)
        assert found.source.chosen.tolist() == pytest.approx(own.chosen.tolist(), abs=1e-6)


def test_weights_over_the_outputs_of_a_gated_head_are_along_a_direction(tmp_path: Path, short_prompt_end: None):
    model = load(write(tmp_path, gated()))
    for output in ({"output 0": 1.0, "output 2": -0.5}, "output 1", [1, 0.5, 0, 0]):
        found = tl_reward.direct_attribution(model, FOUND, output=output)
        scores = tl_reward.score(model, FOUND, output=output)
        assert found.largest_remainder < 1e-4 and float(found.reward[0]) == pytest.approx(scores.chosen.mean(), abs=1e-4)
        text = "\n\nHuman: a\n\nAssistant: b"
        parts = tl_reward.token_attribution(model, text, output=output)
        assert float(parts.head.sum()) + parts.rest == pytest.approx(parts.reward, abs=1e-4)
    with pytest.raises(InputError, match="no direction"):
        tl_reward.direct_attribution(model, FOUND)


def heads() -> Iterator[HookedRewardModel]:
    for output in ("safety", "helpfulness"):
        model = with_outputs()
        model.output = output
        yield model


def test_weights_are_not_rounded_in_half_precision():
    model = with_outputs().to(torch.bfloat16)
    found = tl_reward.direct_attribution(model, FOUND, output=CHOICES["weights"][0])
    assert found.reward.abs().max() > 0.05
    lens = tl_reward.reward_lens(model, FOUND, output=CHOICES["weights"][0]).scores[-1]
    assert lens.chosen == pytest.approx(tl_reward.score(model, FOUND, output=CHOICES["weights"][0]).chosen, abs=2e-5)
    assert found.largest_remainder < 0.05


def test_a_source_is_read_as_the_model_is_where_nobody_says_how():
    model, other = with_outputs(), with_outputs(1)
    found = tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, output="safety")
    assert (found.source.output, found.curve.clean.output) == ("safety", "safety")
    other.output = "verbosity"
    assert tl_reward.patch_models(model, other, FOUND, RANKING, fractions=(0.1,), draws=1, output=0).source.output == "verbosity"
    other.output, other.outputs = None, ("a", "b", "c")
    with pytest.raises(InputError, match=r"^the source: no output 'safety'; the head has 3 outputs: a, b, c; or set source.output$"):
        tl_reward.patch_models(model, other, FOUND, RANKING, output="safety")
    with pytest.raises(InputError, match="say which output is the reward"):
        HeadPatch(other)


def test_a_reward_along_no_single_direction_is_refused_before_pairs_are_read(monkeypatch: pytest.MonkeyPatch):
    def none(self: Any) -> Tensor:
        raise InputError("the head is an MLP")

    monkeypatch.setattr(HookedRewardModel, "reward_direction", property(none))
    monkeypatch.setattr("tl_reward.running.batches.batching.encode_pairs", None)
    model = of_one([1, 0, 0])
    runs = ("direct_attribution", "token_attribution", "reward_lens", "collect_examples")
    for run in (*(CASES[name] for name in runs), lambda model, _: tl_reward.estimate(model, FOUND, "direct")):
        with pytest.raises(InputError, match="the head is an MLP"):
            run(model, model)
    with pytest.raises(InputError, match="the head is an MLP"):
        HeadPatch(model)


def test_biases_of_outputs_are_their_own():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=512, pad_token_id=0)
    config.num_labels = 3
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    for name, each in theirs.named_parameters():  # else every bias is 0
        if name.endswith("ln_f.bias") or name.endswith("score.weight"):
            each.data.normal_(0, 0.5)
    model = HookedRewardModel.from_hf(theirs, byte_tokenizer(), device="cpu")
    assert model.outputs == ("output 0", "output 1", "output 2") and len(set(model.b_U.tolist())) == 3
    encoded = encode_for(model, FOUND)
    with torch.no_grad():
        expected = [theirs(torch.tensor([encoded.rows[row].ids])).logits[0] for row in encoded.chosen]
    for output, weights in ((2, (0.0, 0.0, 1.0)), ([0.65, 0, -0.2], (0.65, 0.0, -0.2))):
        rewards = [float(each @ torch.tensor(weights)) for each in expected]
        assert tl_reward.score(model, FOUND, output=output).chosen.tolist() == pytest.approx(rewards, abs=1e-4)
        assert tl_reward.reward_lens(model, FOUND, output=output).scores[-1].chosen.tolist() == pytest.approx(rewards, abs=1e-4)
        direct = tl_reward.direct_attribution(model, FOUND, output=output)
        assert float(direct.reward[0]) == pytest.approx(sum(rewards) / len(rewards), abs=1e-4)
        assert direct.largest_remainder < 1e-4
