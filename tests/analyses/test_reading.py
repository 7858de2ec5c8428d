"""No analysis leaves out a pair without a word: its result says how many, and why; so do the run that keeps it, and its table."""

import inspect
import json
from collections.abc import Callable
from io import StringIO
from typing import Any, get_type_hints

import pytest
import torch
from rich.console import Console

import tl_reward
from tl_reward.cli import main
from tl_reward.data.pairs import Message, PreferencePair
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError
from tl_reward.interventions.from_functions import intervention
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.sections import Sections
from tl_reward.running.batches import batching, budget
from tl_reward.running.batches.batching import encode_for
from tl_reward.sites import Site

LIMIT = 40
OBJECTIVES = ("helpful", "harmless")


def pair(number: int, answer: str) -> PreferencePair:
    asked = Message("user", f"Hi {number}")
    return PreferencePair(f"p{number}", (asked, Message("assistant", answer)), (asked, Message("assistant", "no")), OBJECTIVES[number % 2])


PAIRS = [*(pair(i, "yes") for i in range(6)), pair(6, "x" * 60), pair(7, "x" * 60)]
READING = Reading(8, {f"longer than {LIMIT} tokens (max_length)": 2})
NEURONS = NeuronSet([(0, 3), (1, 4), (1, 7)])
RANKING = torch.arange(96.0).reshape(2, 48)
# What each analysis takes besides a model, pairs and options. `None`: it is no analysis of pairs, or gives no result of its own.
ANALYSES: dict[str, dict[str, Any] | None] = {
    "ablate_sets": {"sets": {"some": NEURONS}, "draws": 1},
    "ablation_curve": {"ranking": RANKING, "fractions": (0.1,), "draws": 1},
    "attribute": {},
    "collect_examples": {"neurons": NEURONS},
    "compare_gain_with_exact": {"source": tiny_reward_model(seed=1), "gains": {"gradient": RANKING}, "top": 1, "random": 3},
    "compare_with_exact": {"estimates": {"gradient": RANKING}, "top": 1, "random": 3},
    "direct_attribution": {},
    "discover": {},
    "activations": {"sites": "mlp_post"},
    "estimate": {"method": "gradient"},
    "gain": {"source": tiny_reward_model(seed=1)},
    "neuron_effects": {"neurons": NEURONS},
    "patch_models": {"source": tiny_reward_model(seed=1), "ranking": RANKING, "fractions": (0.1,), "draws": 1},
    "patch_pairs": {"kinds": ["mlp_out"]},
    "reward_lens": {},
    "score": {},
    "set_effects": {"sets": {"some": NEURONS}},
    "stream": None,
    "sweep": {"conditions": [()]},
    "tension": {},
}


def analyses() -> list[str]:
    """The public functions that read pairs with a model."""
    functions = {name: getattr(tl_reward, name) for name in tl_reward.__all__}
    return sorted(
        name
        for name, each in functions.items()
        if inspect.isfunction(each) and {"model", "pairs", "options"} <= set(inspect.signature(each).parameters)
    )


def test_every_analysis_is_here():
    assert analyses() == sorted(ANALYSES)


@pytest.mark.parametrize("name", [name for name, extra in ANALYSES.items() if extra is not None])
def test_result_says_what_was_left_out(name: str, tiny: HookedRewardModel):
    function: Callable[..., Any] = getattr(tl_reward, name)
    found = function(tiny, pairs=PAIRS, max_length=LIMIT, **ANALYSES[name] or {})
    assert (found[0] if name == "sweep" else found).reading == READING


def test_every_section_of_results_says_it():
    without = {"overlap", "study", "repair"}  # of no pairs of its own; of a study, which counts `dropped`; of splits, with their sizes
    for name, entries in get_type_hints(Sections).items():
        (entry,) = [each for each in entries.__args__ if each is not str]
        assert name in without or "reading" in entry.__annotations__, name


def test_table_and_run_say_it(tiny: HookedRewardModel, tmp_path):
    results, printed = tl_reward.Results(), StringIO()
    tl_reward.record_discovery(results, "m", "d", tl_reward.discover(tiny, PAIRS, max_length=LIMIT))
    tl_reward.record_scores(results, "m", "d", tl_reward.score(tiny, PAIRS, max_length=LIMIT))
    tl_reward.record_lens(results, "m", "d", tl_reward.reward_lens(tiny, PAIRS, max_length=LIMIT), tiny.tokenizer)
    loaded = tl_reward.Results.load(results.save(tmp_path / "run"))
    tl_reward.summary(loaded, Console(file=printed, width=400))
    assert (
        "discovery of m; scores of m · d; lens of m · d: 2 of 8 pairs left out: 2 longer than 40 tokens (max_length)." in printed.getvalue()
    )
    assert "*: fewer than 10 prompts" in printed.getvalue()
    assert tl_reward.discovery_of(loaded, "m").reading == READING


# The limit where none is given


def test_default_limit_is_the_context(tiny: HookedRewardModel):
    long = [pair(0, "x" * 1500), pair(1, "x" * 3000), *PAIRS[2:]]
    encoded = encode_for(tiny, long)
    assert encoded.reading.left_out == {"longer than 2,048 tokens (the model's context)": 1}
    assert max(len(row.ids) for row in encoded.rows) > 1500


def test_where_the_context_does_not_fit_the_limit_is_what_does(monkeypatch: pytest.MonkeyPatch):
    model = tiny_reward_model()
    for length, fits in ((2048, 2048), (2047, 1792), (1300, 1280), (3, 1024)):
        room = 2 * length * budget.bytes_per_token(model, length)
        monkeypatch.setattr(budget, "free_memory", lambda _, room=room: room)
        assert budget.longest_that_fits(model) == fits
    monkeypatch.setattr(batching, "longest_that_fits", lambda *_, **__: 1280)
    left_out = encode_for(model, [pair(0, "x" * 1500), *PAIRS[1:]]).reading.left_out
    assert left_out == {"longer than 1,280 tokens (what fits in memory: see max_memory_gb)": 1}
    # It is found once for a model: free memory varies, and all analyses are to read the same pairs.
    monkeypatch.setattr(batching, "longest_that_fits", lambda *_, **__: 2048)
    assert encode_for(model, [pair(0, "x" * 1500), *PAIRS[1:]]).reading.left_out == left_out


def test_an_edit_that_needs_more_memory_reads_the_same_pairs_or_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = tiny_reward_model()
    whole = intervention(Site(0, "mlp_out"))(lambda activation: activation)
    room = 2 * 2048 * budget.bytes_per_token(model, 2048)
    assert 1300 * budget.bytes_per_token(model, 1300, scores=True) > room // 2
    monkeypatch.setattr(budget, "free_memory", lambda _: room)
    long = [pair(0, "x" * 1500), *PAIRS[1:]]
    assert len(tl_reward.score(model, long)) == len(long)
    for read in (
        lambda: tl_reward.score(model, long, interventions=[whole]),
        lambda: tl_reward.sweep(model, long, [[], [whole]]),
        lambda: tl_reward.discover(model, long, interventions=[whole]),
    ):
        with pytest.raises(InputError, match="max_memory_gb must be at least"):
            read()


def test_models_of_one_command_read_the_same_pairs(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, context in (("long", 2048), ("short", 1100)):
        tiny_hf_model().save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    rows = [{"prompt": f"Hi {i}", "chosen": "x" * length, "rejected": "no"} for i, length in enumerate((5, 6, 1300))]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ["--pairs", str(tmp_path / "pairs.jsonl"), "--device", "cpu", "--out"]

    def left_out(*models: str) -> list[dict[str, int]]:
        out = str(tmp_path / "-".join(["run", *models]))
        main(["score", *(str(tmp_path / model) for model in models), *given, out])
        return [entry["reading"]["left_out"] for entry in tl_reward.Results.load(out).section("scores").values() if "reading" in entry]

    assert left_out("long") == [{}]
    assert left_out("long", "short") == [
        {"longer than 1,100 tokens (the shortest context of the models)": 1},
        {"longer than 1,100 tokens (the model's context)": 1},
    ]
    (tmp_path / "short" / "config.json").write_text((tmp_path / "long" / "config.json").read_text())
    rooms = iter([2**40, 1])  # the first model is loaded while there is room, the second when there is none
    monkeypatch.setattr(batching, "longest_that_fits", lambda *_, **__: 2048 if next(rooms) > 1 else 1024)
    assert left_out("short", "long") == [{}, {}]
    capsys.readouterr()


def test_readings_add_up():
    one, other = Reading(3, {"a": 1}, {"b": 1}), Reading(4, {"a": 2, "c": 1}, {}, "2024-07-26")
    assert one + other == Reading(7, {"a": 3, "c": 1}, {"b": 1}, "2024-07-26")
