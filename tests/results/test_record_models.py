"""A run says which model it means by a name, and is not used for another one."""

import io
from pathlib import Path

import pytest
from helpers.several_outputs import NAMES, with_outputs
from model.test_head_layouts import gated, short_prompt_end, write
from rich.console import Console

from tl_reward.analyses.ablation_curves import ablate_sets
from tl_reward.analyses.attribution import Attribution, attribute
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import compare_with_exact, neuron_effects
from tl_reward.analyses.examples.collect import collect_examples
from tl_reward.analyses.pair_patching import patch_pairs
from tl_reward.analyses.reward_lens import reward_lens
from tl_reward.analyses.tension import tension
from tl_reward.cli import main
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError, Lacking
from tl_reward.measures.names import Method
from tl_reward.model.reward_model import load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_edits import record_effects, record_sets, sets_of
from tl_reward.results.record_examples import record_examples
from tl_reward.results.record_models import check_model, record_model
from tl_reward.results.record_neurons import record_attribution, record_discovery, record_scores, record_tension
from tl_reward.results.record_patching import record_lens, record_patching
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.show.notes import notes_of
from tl_reward.show.page.panels import panels_of
from tl_reward.show.run_tables import summary

__all__ = ["short_prompt_end"]
ONE, OTHER = tiny_reward_model(seed=0), tiny_reward_model(seed=1)


def test_a_run_holds_one_model_of_a_name():
    results = Results()
    record_model(results, "m", ONE)
    record_model(results, "m", ONE)
    assert results.provenance["models"] == {"m": ONE.origin.to_json() | {"readout": "mask"}}
    with pytest.raises(
        InputError, match=r"^m is made in memory \(llama, 2 layers of 48 neurons, weights \w{8}\) there and .* \(weights differ\)"
    ):
        record_model(results, "m", OTHER)
    record_model(results, "other", OTHER)
    assert list(results.provenance["models"]) == ["m", "other"]


def test_what_a_run_found_in_one_model_is_not_used_for_another():
    results = Results()
    check_model(results, "m", OTHER)  # an earlier version recorded no models
    record_model(results, "m", ONE)
    check_model(results, "m", ONE)
    check_model(results, "unknown", OTHER)
    with pytest.raises(InputError, match="--other-model"):
        check_model(results, "m", OTHER)
    with pytest.warns(UserWarning, match=r"m is .* there and .* here \(.*differ\): its neurons are taken all the same"):
        check_model(results, "m", OTHER, other_model=True)
    results.provenance["models"]["m"] |= {"path": "elsewhere", "revision": "abc"}
    check_model(results, "m", ONE)
    results.provenance["models"]["m"] |= {"architecture": "qwen3", "d_mlp": 4}
    with pytest.raises(InputError, match=r"elsewhere \(qwen3, 2 layers of 4 neurons.*architecture, d_mlp differ"):
        check_model(results, "m", ONE)


@pytest.mark.parametrize("models", [None, [], {"m": None}, {"m": "text"}, {"m": {}}])
def test_a_damaged_record_of_models_is_told_in_a_line(models: object):
    results = Results(provenance={"models": models})
    if models == {"m": {}}:
        with pytest.raises(InputError, match="differ"):
            check_model(results, "m", ONE)
    else:
        check_model(results, "m", ONE)
    Results.merge([results, Results(provenance={"models": {"n": ONE.origin.to_json()}})])


def test_runs_that_mean_two_models_by_one_name_are_not_merged():
    runs = [Results(), Results(), Results()]
    record_model(runs[0], "m", ONE)
    record_model(runs[1], "n", OTHER)
    record_model(runs[2], "m", OTHER)
    merged = Results.merge(runs[:2])
    assert merged.provenance["models"] == {
        "m": ONE.origin.to_json() | {"readout": "mask"},
        "n": OTHER.origin.to_json() | {"readout": "mask"},
    }
    assert list(runs[0].provenance["models"]) == ["m"]
    with pytest.raises(InputError, match=r"^run 2, beside run 1: .*two runs hold models of that name"):
        Results.merge([runs[0], runs[2]])


def test_a_ranking_of_another_model_in_a_folder_of_that_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    places = [tmp_path / part / "checkpoint-500" for part in ("one", "two")]
    for seed, place in enumerate(places):
        tiny_hf_model(seed=seed).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
    data = ["--limit", "2"]
    found = tmp_path / "found"
    main(["discover", str(places[0]), "--sites", "mlp_gate", "--out", str(found), *data])
    assert Results.load(found).provenance["models"]["checkpoint-500"]["path"] == str(places[0].resolve())
    ablate = [
        "ablate",
        str(places[1]),
        "--ranking",
        str(found),
        "--fractions",
        "0.1",
        "--draws",
        "1",
        "--out",
        str(tmp_path / "out"),
        *data,
    ]
    examples = ["examples", str(places[1]), "--ranking", str(found), "--most", "2", "--out", str(tmp_path / "examples"), *data]
    for command in (ablate, examples):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(command)
        (said,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
        assert str(places[0]) in said and str(places[1]) in said
    assert sorted(item.name for item in tmp_path.iterdir()) == ["found", "one", "two"]
    main([*ablate, "--other-model"])
    assert Results.load(tmp_path / "out").provenance["models"]["checkpoint-500"]["path"] == str(places[1].resolve())


def test_one_model_read_at_two_places_is_two():
    results = Results()
    record_model(results, "m", ONE)
    other = tiny_reward_model()
    other.readout = "hf"
    with pytest.raises(InputError, match=r"\(readout differ\)"):
        record_model(results, "m", other)


def test_what_was_found_in_files_is_not_used_for_what_was_made_of_them_in_memory(tmp_path: Path):
    tiny_hf_model().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    results, model = Results(), load(tmp_path, device="cpu")
    record_model(results, "m", model)
    model.W_U.data.mul_(2)
    with pytest.raises(InputError, match=r"edited in memory \(llama, .* here \(weights differ\)"):
        check_model(results, "m", model)


def test_the_sets_of_a_run_with_two_sites_are_those_of_the_site_that_is_asked_for(tiny):
    pairs = [pair for name in ("helpful", "harmless") for pair in load_pairs("embedded", split="find", objective=name, limit=3)]
    runs = []
    for site in ("mlp_post", "attn_z"):
        runs.append(Results())
        record_tension(runs[-1], "m", "d", tension(tiny, pairs, site=site), fraction=0.25)
    merged = Results.merge(runs)
    for site, run in zip(("mlp_post", "attn_z"), runs, strict=True):
        found = sets_of(merged, "m", site)
        assert found.entry["site"] == site and found.sets == sets_of(run, "m").sets
    with pytest.raises(InputError, match=r"^one tension of m is needed; the run has 2, at mlp_post, attn_z: say which site$"):
        sets_of(merged, "m")
    with pytest.raises(Lacking, match=r"^one tension of m at mlp_gate is needed; the run has"):
        sets_of(merged, "m", "mlp_gate")


def test_a_run_says_which_output_its_numbers_are_of():
    pairs = [pair for name in ("helpful", "harmless") for pair in load_pairs("embedded", split="find", objective=name, limit=2)]
    model, results, neurons = with_outputs(), Results(), NeuronSet([(0, 1)])
    record_model(results, "armo", model)  # no output is chosen, each call says which
    for output in ("safety", {"helpfulness": 0.65, "verbosity": -0.2}):
        record_scores(results, "armo", "d", score(model, pairs, output=output))
    pull = tension(model, pairs, output="safety")
    record_tension(results, "armo", "d", pull, fraction=0.1)
    estimates: dict[Method, Attribution] = {"gradient": attribute(model, pairs, output="safety")}
    values = {"gradient": estimates["gradient"].effect}
    exact = {name: compare_with_exact(model, pairs, values, top=1, random=3, output=name) for name in ("safety", "verbosity")}
    record_attribution(results, "armo", "d", estimates, exact["safety"])
    with pytest.raises(InputError, match="must be of one output, got gradient of safety, and effects of verbosity"):
        record_attribution(results, "armo", "d", estimates, exact["verbosity"])
    record_lens(results, "armo", "d", reward_lens(model, pairs, output="safety"), model.tokenizer)
    record_examples(results, "armo", "d", collect_examples(model, pairs, neurons, output="safety"))
    record_effects(results, "armo", "d", neuron_effects(model, pairs, neurons, output="safety"))
    record_patching(results, "armo", "d", patch_pairs(model, pairs, kinds=("mlp_out",), output="safety"))
    assert results.models() == {"armo · safety", "armo · helpfulness=0.65,verbosity=-0.2"}
    assert {name.partition(" · d")[0] for names in results.names().values() for name in names} == results.models()
    assert {entry.get("output") for entry in results.section("lens").values()} == {"safety"}
    assert results.provenance["models"]["armo"]["outputs"] == list(NAMES) and "output" not in results.provenance["models"]["armo"]
    sets = sets_of(results, "armo · safety")
    ablated = {name: ablate_sets(model, pairs, sets.sets, draws=0, output=name) for name in ("safety", "verbosity")}
    for found in ablated.values():
        record_sets(results, "armo", "d", found, site="mlp_post", source=sets.entry, pairs=pairs)
    told = {name: entry.get("found_by_output") for name, entry in results.section("sets").items()}
    assert told == {"armo · safety · d": None, "armo · verbosity · d": "safety"}
    (note,) = notes_of(results)
    assert note == "sets of armo · verbosity · d: its neurons were found by another output, safety"
    said = io.StringIO()
    summary(results, Console(file=said, width=200))
    assert "armo · verbosity" in said.getvalue() and note in said.getvalue()
    panels = [f"{panel.caption} {panel.figure.to_json()}" for panel in panels_of(results)]
    assert "armo · safety" in panels[0] or "armo \\u00b7 safety" in panels[0]


def test_neurons_of_another_output_are_not_used_without_being_asked_for():
    model, results = with_outputs(), Results()
    model.output = "safety"
    record_model(results, "armo", model)
    assert list(results.provenance["models"]) == ["armo · safety"]
    assert results.provenance["models"]["armo · safety"]["output"] == "safety"
    check_model(results, "armo · safety", model)
    check_model(results, "armo", model)
    model.output = 2
    with pytest.raises(
        InputError, match=r"^armo · safety is .*, output safety\) there and .*, output verbosity\) here \(output differ\): "
    ):
        check_model(results, "armo · safety", model)
    with pytest.warns(UserWarning, match="its neurons are taken all the same"):
        check_model(results, "armo · safety", model, other_model=True)
    record_model(results, "armo", model)
    assert list(results.provenance["models"]) == ["armo · safety", "armo · verbosity"]
    # What was recorded without a choice, such as a discovery, goes with each output; its weights are compared all the same.
    plain = Results()
    record_model(plain, "armo", with_outputs())
    for label in ("armo", "armo · verbosity"):
        check_model(plain, label, model)
        with pytest.raises(InputError, match=r"\(weights differ\)"):
            check_model(plain, label, with_outputs(1))
    assert list(Results.merge([results, plain]).provenance["models"]) == ["armo · safety", "armo · verbosity", "armo"]


def test_what_a_published_model_takes_is_an_output_too(tmp_path: Path, short_prompt_end: None):
    """Nobody has chosen it, so that labels are without it; neurons that were found by it are not another output's."""
    pairs = [pair for name in ("helpful", "harmless") for pair in load_pairs("embedded", split="find", objective=name, limit=2)]
    model, run = load(write(tmp_path, gated(), max_position_embeddings=4096), device="cpu"), Results()
    record_model(run, "armo", model)
    record_tension(run, "armo", "d", tension(model, pairs), fraction=0.1)
    assert run.provenance["models"]["armo"]["output"] == "score" and run.models() == {"armo"}
    sets = sets_of(run, "armo")
    assert sets.entry.get("output") == "score"
    tests = Results()
    for output in (None, "score", "output 1"):
        model.output = output
        record_model(tests, "armo", model)
        found = ablate_sets(model, pairs, sets.sets, draws=0)
        record_sets(tests, "armo", "d", found, site="mlp_post", source=sets.entry, pairs=pairs)
    with pytest.raises(InputError, match=r"output score\) there and .*, output output 1\) here \(output differ\)"):
        check_model(run, "armo", model)
    model.output = "score"
    check_model(run, "armo", model)
    told = {name: entry.get("found_by_output") for name, entry in tests.section("sets").items()}
    assert told == {"armo · d": None, "armo · score · d": None, "armo · output 1 · d": "score"}
    # A discovery is of activations, and goes with each.
    found_only = Results()
    model.output = None
    record_model(found_only, "armo", model)
    record_discovery(found_only, "armo", "d", discover(model, pairs))
    model.output = "output 1"
    check_model(found_only, "armo", model)
