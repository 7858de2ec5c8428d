"""A run says which model it means by a name, and is not used for another one."""

from pathlib import Path

import pytest

from tl_reward.analyses.tension import tension
from tl_reward.cli import main
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError, Lacking
from tl_reward.model.reward_model import load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.results.record_edits import sets_of
from tl_reward.results.record_models import check_model, record_model
from tl_reward.results.record_neurons import record_tension
from tl_reward.results.store import Results

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
