"""Every function that runs a model refuses what it does not know, before it runs: keywords, values, things in place of pairs and models."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Unpack, get_origin

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch

import tl_reward
from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.model_patching import ModelPatching
from tl_reward.data.pairs import data_hash
from tl_reward.data.readers import GivenPairs, load_pairs
from tl_reward.errors import InputError, UnknownOption
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import score, sweep

PAIRS = load_pairs("embedded", split="test", limit=3)
ROWS = [
    {"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": "No.", "objective": ("helpful", "harmless")[i % 2]} for i in range(4)
]
DATASET = datasets.Dataset.from_list(ROWS)
EDIT = ZeroAblation(NeuronSet([(0, 1)]))
ANY_SCORE: Any = score  # called as the type checker would not have it


def parameters_of(value: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(value).parameters if inspect.isfunction(value) else {}


def takes_options(value: Any) -> bool:
    if not inspect.isfunction(value):
        return False
    return any(
        each.kind is inspect.Parameter.VAR_KEYWORD and get_origin(each.annotation) is Unpack
        for each in inspect.signature(value).parameters.values()
    )


def functions() -> dict[str, Callable[..., Any]]:
    found = {}
    for package in ("running", "analyses", "interventions", "repairing"):
        parent = importlib.import_module(f"tl_reward.{package}")
        for module in pkgutil.walk_packages(parent.__path__, f"{parent.__name__}."):
            members = vars(importlib.import_module(module.name))
            found |= {f"{value.__module__}.{name}": value for name, value in members.items() if takes_options(value)}
    return found


FUNCTIONS = functions()


def test_functions_are_found():
    # Guards the test below: it passes where nothing is found.
    public = {name for name in tl_reward.__all__ if takes_options(getattr(tl_reward, name))}
    assert {"score", "sweep", "stream", "discover", "attribute", "ablate_sets", "patch_models", "collect_examples"} <= public
    assert public <= {name.rpartition(".")[2] for name in FUNCTIONS}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_keyword_that_it_lacks_is_refused_with_the_nearest_name(name: str):
    with pytest.raises(InputError, match=r"has no option 'interventionz'; did you mean interventions\? \(known: ") as caught:
        FUNCTIONS[name](interventionz=[EDIT])
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith(f"{name.rpartition('.')[2]}() ")


def test_a_keyword_of_the_function_itself_is_proposed(tiny):
    misspelt: dict[str, Any] = {"fraction": 0.1}
    with pytest.raises(UnknownOption, match=r"ablation_curve\(\) has no option 'fraction'; did you mean fractions\?"):
        tl_reward.ablation_curve(tiny, PAIRS, torch.rand(2, 48), **misspelt)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("overlong", "nope", "overlong must be one of drop, left, error, got 'nope'"),
        ("max_length", "long", "max_length must be a whole number, got 'long'"),
        ("max_length", True, "max_length must be a whole number, got True"),
        ("max_length", 0, "max_length must be at least 1, got 0"),
        ("max_tokens", -3, "max_tokens must be at least 1, got -3"),
        ("max_tokens", 2.5, "max_tokens must be a whole number, got 2.5"),
        ("max_memory_gb", float("nan"), "max_memory_gb must be a finite number above 0, got nan"),
        ("max_memory_gb", float("inf"), "max_memory_gb must be a finite number above 0, got inf"),
        ("max_memory_gb", 0, "max_memory_gb must be a finite number above 0, got 0"),
        ("interventions", EDIT, "interventions must be a list, got ZeroAblation by itself: put it in brackets"),
        ("interventions", [EDIT, 5], r"interventions\[1\] must have hooks\(batch\), got 5"),
        ("interventions", [ZeroAblation], r"interventions\[0\] must have hooks\(batch\), got the class ZeroAblation itself"),
        ("interventions", None, "interventions must be a list, got None"),
        ("progress", 5, "progress must be text, got 5"),
        ("output", 1, r"output must be in \[0, 1\), got 1; the head has 1 output: reward$"),
        ("output", "rewards", "no output 'rewards'; did you mean reward\\?; the head has 1 output: reward$"),
        ("output", [1.0, 2.0], "output must have a finite weight for each of 1 outputs"),
        ("output", {"reward": "much"}, r"output\['reward'\] must be a number, got 'much'$"),
        ("output", 1.5, "output must be text, a whole number, a dictionary, a list or None, got 1.5$"),
    ],
)
def test_a_value_is_refused_also_where_pairs_are_encoded(name: str, value: Any, says: str, tiny):
    for pairs in (PAIRS, encode_for(tiny, PAIRS)):
        with pytest.raises(InputError, match=f"^{says}"):
            ANY_SCORE(tiny, pairs, **{name: value})


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([], "pairs must not be empty"),
        (iter(()), "pairs must not be empty"),
        ("embedded", "got 'embedded' (tl_reward.load_pairs reads a file)"),
        (PAIRS[0], "got PreferencePair (put it in brackets)"),
        ({"embedded": PAIRS}, "got dict"),
        ([*PAIRS, {"chosen": "a"}], "pairs[3] must be a PreferencePair, got dict (give pairs alone, or rows alone)"),
        ([ROWS[0], PAIRS[0]], "rows:2: is a PreferencePair already: give the functions pairs alone, or rows alone"),
        ([ROWS[0], {"chosen": "a", "rejected": ""}], "rows:2: "),
        ([*ROWS, ROWS[0] | {"rejected": 5}], "rows:5: "),
        (datasets.DatasetDict({"train": DATASET}), "pairs holds the splits train: give one of them, as in pairs['train']"),
        (pandas.DataFrame([{"text": "a"}]), "rows:1: unknown schema: found text"),
        (torch.zeros(2, 2), "rows:1: unknown schema: found list"),
        (None, "got None"),
    ],
)
def test_what_stands_in_the_place_of_pairs(pairs: Any, says: str, tiny):
    with pytest.raises(InputError) as caught:
        score(tiny, pairs)
    assert says in str(caught.value)


def test_any_iterable_of_pairs_is_read_once(tiny):
    assert ANY_SCORE(tiny, (pair for pair in PAIRS)).chosen == pytest.approx(score(tiny, PAIRS).chosen, abs=0)
    once = (row for row in ROWS)
    assert len(score(tiny, once)) == 4
    with pytest.raises(InputError, match=r"^pairs must not be empty \(what gives rows one by one gives them once: make a list of it\)$"):
        score(tiny, once)


@pytest.mark.parametrize("kind", ["list", "tuple", "generator", "Dataset", "IterableDataset", "DataFrame", "Table"])
def test_rows_in_the_place_of_pairs(kind: str, tiny):
    """They give what the pairs made of them give, ids and labels included."""
    held: dict[str, Any] = {
        "list": ROWS, "tuple": tuple(ROWS), "generator": (row for row in ROWS), "Dataset": DATASET,
        "IterableDataset": DATASET.to_iterable_dataset(), "DataFrame": pandas.DataFrame(ROWS), "Table": pyarrow.Table.from_pylist(ROWS),
    }  # fmt: skip
    found, expected = score(tiny, held[kind]), score(tiny, tl_reward.pairs_from(ROWS))
    assert found.margin.tolist() == expected.margin.tolist()
    assert (found.ids, found.objectives, found.prompts) == (expected.ids, expected.objectives, expected.prompts)


WITH_PAIRS = [name for name in tl_reward.__all__ if {"pairs", "data"} & set(parameters_of(getattr(tl_reward, name)))]


@pytest.mark.parametrize("name", WITH_PAIRS)
def test_every_function_that_takes_pairs_takes_rows(name: str, tiny, tmp_path):
    """Both in its annotation and when it is called. What it needs besides stands in `given`."""
    hints = {each: hint.annotation for each, hint in parameters_of(getattr(tl_reward, name)).items() if each in ("pairs", "data")}
    assert [*hints.values()] in ([Pairs], [GivenPairs], [Mapping[str, GivenPairs] | None])
    ranking, neurons = torch.rand(2, 48), NeuronSet([(0, 1)])
    found_on = tl_reward.found_on("mine", PAIRS)
    curve = tl_reward.ablation_curve(tiny, PAIRS, ranking, fractions=[0.1], draws=1)
    other = tiny_reward_model(seed=1)
    given: dict[str, dict[str, Any]] = {
        "stream": {"sites": [tl_reward.Site(0, "mlp_post")], "consumer": lambda *_: None},
        "activations": {"sites": "mlp_post"},
        "sweep": {"conditions": [[EDIT]]},
        "ablation_curve": {"ranking": ranking},
        "ablate_sets": {"sets": {"one": neurons}},
        "set_effects": {"sets": {"one": neurons}},
        "neuron_effects": {"neurons": neurons},
        "collect_examples": {"neurons": neurons},
        "estimate": {"method": "gradient"},
        "compare_with_exact": {"estimates": {"one": ranking}, "top": 1, "random": 3},
        "gain": {"source": other},
        "compare_gain_with_exact": {"source": other, "gains": {"one": ranking}, "top": 1, "random": 3},
        "patch_models": {"source": other, "ranking": ranking},
        "patch_pairs": {"kinds": ["mlp_out"]},
        "found_on": {"dataset": "mine"},
        "record_ablation": {
            "results": Results(), "model": "tiny", "dataset": "mine", "curve": curve, "score": "mean", "site": "mlp_post",
            "found": found_on,
        },
        "record_sets": {
            "results": Results(), "model": "tiny", "dataset": "mine", "found": tl_reward.ablate_sets(tiny, PAIRS, {"one": neurons}),
            "site": "mlp_post", "source": found_on,
        },
        "record_model_patching": {
            "results": Results(), "model": "tiny", "source_model": "other", "dataset": "mine", "found": ModelPatching(curve.clean, curve),
            "ranking": "mean", "site": "mlp_post", "where": "all", "source": found_on,
        },
        "run_folder": {"out": tmp_path / "run"},
    }  # fmt: skip
    function, options = getattr(tl_reward, name), dict(given.get(name, {}))
    if "model" in parameters_of(function) and "results" not in options:
        options["model"] = tiny
    if name == "train":  # it refuses what is no pair, and where rows are pairs it goes on to look for the base
        with pytest.raises(InputError, match=r"^rows:1: unknown schema"):
            function("no/such/base", [{"text": "a"}], tmp_path / "trained")
    elif "data" in hints:
        found = function(**options, data={"mine": DATASET})
        read = found["data"] if name == "provenance" else found.__enter__().provenance["data"]
        assert read["mine"] == {"pairs": 4, "sha256": data_hash(tl_reward.pairs_from(ROWS))}
    else:
        function(pairs=DATASET, **options)


def test_a_condition_that_is_an_intervention(tiny):
    edit: Any = EDIT
    with pytest.raises(InputError, match=r"^conditions\[0\] must be a list, got ZeroAblation by itself: put it in brackets$"):
        sweep(tiny, PAIRS, [edit])


@pytest.mark.parametrize("name", ["model", "source", "base"])
def test_a_path_in_the_place_of_a_model(name: str, tiny):
    path: Any = "runs/helpful"
    calls = {
        "model": lambda: score(path, PAIRS),
        "source": lambda: tl_reward.gain(tiny, path, PAIRS),
        "base": lambda: tl_reward.discover(tiny, PAIRS, base=path),
    }
    with pytest.raises(InputError, match=rf"^{name} must be a reward model \(tl_reward.load gives one\), got 'runs/helpful'"):
        calls[name]()


def test_a_list_in_the_place_of_a_dictionary(tiny):
    gains: Any = [torch.zeros(2, 48)]
    with pytest.raises(InputError, match=r"^gains must be a dictionary, got "):
        tl_reward.compare_gain_with_exact(tiny, tiny, PAIRS, gains)


def test_numbers_of_numpy_pass():
    def count_and_share(count: int, share: float, many: list[int]) -> tuple[int, float]:
        return count, share

    function: Any = checked(count_and_share)
    assert function(np.int64(3), np.float32(0.5), [np.int64(1)]) == (3, 0.5)
    with pytest.raises(TypeError, match="missing a required argument"):  # Python's own, as for any call
        function(3)


def test_the_signature_stays():
    assert list(inspect.signature(score).parameters) == ["model", "pairs", "progress", "options"]
    known = {"interventions", "max_tokens", "max_memory_gb", "max_length", "overlong", "on_bad", "output"}
    assert RunOptions.__annotations__.keys() == known


def test_pairs_that_were_encoded_in_another_way_are_refused(tiny: HookedRewardModel):
    encoded, short = encode_for(tiny, PAIRS), encode_for(tiny, PAIRS, max_length=500)
    hf = tiny_reward_model()
    hf.readout = "hf"
    templated = tiny_reward_model()
    assert templated.tokenizer is not None
    templated.tokenizer.chat_template = "{{ messages }}"
    cases: tuple[tuple[HookedRewardModel, Any, dict[str, Any], str], ...] = (
        (tiny, encoded, {"max_length": 512}, "max_length 2048, not 512"),
        (tiny, short, {"max_length": 512, "overlong": "left"}, "max_length 500, not 512; with overlong 'drop', not 'left'"),
        (hf, encoded, {}, "the read-out mask, not hf"),
        (tiny, encode_for(hf, PAIRS), {}, "the read-out hf, not mask"),
        (templated, encoded, {}, "the tokenizer of"),
    )
    run: Callable[..., Any]
    for model, pairs, options, says in cases:
        for run in (score, discover, attribute):
            with pytest.raises(InputError, match=f"^these EncodedPairs were made with {says}"):
                run(model, pairs, **options)
    assert score(tiny, short, max_length=500).chosen.tolist() == score(tiny, PAIRS).chosen.tolist()
    assert score(tiny_reward_model(), encoded.apart()).chosen.tolist() == pytest.approx(score(tiny, PAIRS).chosen.tolist(), abs=1e-5)
