"""Numbers have one range by their name, in functions and in commands."""

import math
from dataclasses import fields
from typing import Any

import pytest
import torch

from tl_reward.analyses.ablation_curves import ablate_sets
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.arguments import RANGES, check_range
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError, as_options
from tl_reward.interventions.ablations import MeanAblation, ResampleAblation, ScaleAblation, ZeroAblation
from tl_reward.interventions.patches import HeadPatch, Patch, Source, patch_between
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

ONE = NeuronSet([(0, 1)])


@pytest.mark.parametrize("name", RANGES)
def test_what_is_not_finite_is_in_no_range(name: str):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(InputError, match=rf"{value}$"):
            check_range(name, value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", -1, "seed must be in [0, 9223372036854775807], got -1"),
        ("seed", 2**63, "got 9223372036854775808"),
        ("draws", -1, "draws must be in [0, 1000000], got -1"),
        ("port", 65536, "port must be in [0, 65535], got 65536"),
        ("fractions", (0.1, 0.2, 0.1), "fractions must differ, got 0.1 twice"),
        ("fractions", (), "fractions must not be empty"),
        ("fractions", [0.5, 1.5], "fraction must be in (0, 1], got 1.5"),
    ],
)
def test_out_of_range(name: str, value: Any, says: str):
    with pytest.raises(InputError) as caught:
        check_range(name, value)
    assert says in str(caught.value)


def test_in_range():
    for name, value in {"seed": 0, "fractions": (1.0, 0.5), "max_tokens": 10**400, "limit": None, "unknown": -1, "port": 0}.items():
        check_range(name, value)


def test_messages_of_functions_and_of_commands():
    message = 'max_memory_gb must be above 0 (on_bad="drop" leaves it out); see runs/max_length, a.max_length'
    assert as_options(message) == "--max-memory-gb must be above 0 (--drop-bad leaves it out); see runs/max_length, a.max_length"
    assert as_options('say columns={"prompt": "the question", "chosen": …} or not') == 'say --columns "prompt=the question" chosen=… or not'


VALUES = torch.zeros(2, 3)


def made(kind: Any, given: dict[str, Any]) -> None:
    """Makes a dataclass as its own `__init__` would; the checker of types that the tests run under is first there."""
    instance = object.__new__(kind)
    for each in fields(kind):
        value = given.get(each.name, each.default_factory() if callable(each.default_factory) else each.default)
        object.__setattr__(instance, each.name, value)
    instance.__post_init__()


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (ZeroAblation, {"neurons": [(0, 1)]}, "neurons must be a NeuronSet, got list"),
        (ZeroAblation, {"neurons": ONE, "site": "resid_post"}, "site must be one of mlp_post, mlp_gate, attn_z, got 'resid_post'"),
        (ScaleAblation, {"neurons": ONE, "factor": math.nan}, "factor must be a finite number, got nan"),
        (ScaleAblation, {"neurons": ONE, "factor": "2"}, "factor must be a number, got '2'"),
        (MeanAblation, {"neurons": ONE, "mean": 5}, "mean must be a tensor, got 5"),
        (MeanAblation, {"neurons": ONE, "mean": VALUES * math.nan}, "1 values of mean are not finite"),
        (MeanAblation, {"neurons": NeuronSet([(0, 3)]), "mean": VALUES}, "neuron must be in [0, 3), got 3"),
        (ResampleAblation, {"neurons": ONE, "bank": torch.zeros(0, 2, 3)}, "every layer and neuron, got shape [0, 2, 3]"),
        (ResampleAblation, {"neurons": ONE, "bank": torch.zeros(4, 2, 3), "seed": -1}, "seed must be in"),
        (Source, {"model": "helpful"}, "model must be a reward model (tl_reward.load gives one), got 'helpful'"),
        (Patch, {"source": "helpful", "places": ONE}, "source must be Source(model) or patch_between(model, other), got 'helpful'"),
        (HeadPatch, {"source": "helpful"}, "source must be a reward model"),
        (Site, {"layer": "0", "kind": "mlp_post"}, "layer must be a whole number, got '0'"),
    ],
)
def test_what_is_made_of_something_else(kind: Any, given: dict[str, Any], says: str):
    with pytest.raises(InputError) as caught:
        made(kind, given)
    assert says in str(caught.value)


@pytest.mark.parametrize("coord", [(0.5, 1), (True, 1), (0, 1, 2), "12", 5])
def test_neurons_are_whole_numbers(coord: Any):
    with pytest.raises(InputError, match=r"^neurons must be pairs \(layer, neuron\) of whole numbers"):
        NeuronSet(each for each in [coord])


def test_names_of_neurons_by_themselves():
    with pytest.raises(InputError, match=r"^names of neurons must be a list, got '20.131' by itself$"):
        NeuronSet.parse("20.131")


def test_less_than_one_neuron():
    with pytest.raises(InputError, match=r"^fraction 0\.01 of 6 neurons is less than one neuron$"):
        NeuronSet.top(VALUES, fraction=0.01)


def test_values_of_another_models_shape_are_refused(tiny):
    pairs = load_pairs("embedded", split="test", limit=2)
    for edit in (MeanAblation(ONE, VALUES), ResampleAblation(ONE, torch.zeros(4, 2, 3))):
        with pytest.raises(InputError, match=r"has 48 neurons, the values to set are of a model with 3$"):
            score(tiny, pairs, interventions=[edit])


def test_a_patch_between_a_model_and_itself(tiny):
    with pytest.raises(InputError, match="a patch between models needs two, got one twice"):
        patch_between(tiny, tiny)


def test_neurons_of_another_models_shape_are_refused_before_anything_runs(tiny, monkeypatch):
    pairs = load_pairs("embedded", split="test", limit=2)
    narrow, far = NeuronSet.top(torch.rand(2, 3), k=1), NeuronSet.from_mask(torch.ones(1, 48) > 0)
    monkeypatch.setattr(type(tiny), "forward", None)
    for neurons, says in (
        (narrow, "these neurons are of a model with 2 layers of 3, and this one has 2 layers of 48"),
        (narrow | ONE, "2 layers of 3"),
        (narrow.matched_random(3, seed=0), "2 layers of 3"),
        (far, "1 layers of 48"),
        (NeuronSet([(2, 0)]), "layer must be in [0, 2), got 2"),
        (NeuronSet([(0, 48)]), "neuron must be in [0, 48), got 48"),
    ):
        for run in (
            lambda neurons: score(tiny, pairs, interventions=[ZeroAblation(neurons)]),
            lambda neurons: sweep(tiny, pairs, [[], [ScaleAblation(neurons, 2.0)]]),
            lambda neurons: ablate_sets(tiny, pairs, {"some": neurons}),
            lambda neurons: neuron_effects(tiny, pairs, neurons),
        ):
            with pytest.raises(InputError) as caught:
                run(neurons)
            assert says in str(caught.value)
    with pytest.raises(InputError, match="sets of two models' shapes: one of 2 layers of 3, the other of 1 layers of 48"):
        _ = narrow & far
    assert narrow == NeuronSet(narrow.coords) and hash(narrow) == hash(NeuronSet(narrow.coords))
