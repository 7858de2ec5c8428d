"""Files of neurons, as a run's page saves them: what they must hold, and the commands that take them."""

import json
from pathlib import Path

import pytest
from helpers.refusals import command_refuses, refusal

from tl_reward.cli import main
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.show.page.panels import panels_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reward model on disk."""
    place = tmp_path_factory.mktemp("models") / "good"
    hf = tiny_hf_model()
    hf.save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    (place / "training.json").write_text("{}")
    return place


def shape_of(folder: Path) -> list[int]:
    config = json.loads((folder / "config.json").read_text())
    return [config["num_hidden_layers"], config["intermediate_size"]]


def written(path: Path, neurons: object, **more: object) -> Path:
    path.write_text(json.dumps({"name": "mine", "model": "good", "neurons": neurons, **more}))
    return path


def test_a_file_and_names_together(tmp_path):
    file = written(tmp_path / "mine.json", [[1, 4], [0, 2]], shape=[2, 5])
    assert NeuronSet.load(file).coords == ((0, 2), (1, 4)) and NeuronSet.load(file).shape == (2, 5)
    assert NeuronSet.parse([str(file), "1.0"]).coords == ((0, 2), (1, 0), (1, 4))
    assert NeuronSet.load(written(tmp_path / "bare.json", [[7, 9]])).shape is None
    (tmp_path / "list.json").write_text(json.dumps(NeuronSet([(1, 4), (0, 2)]).to_json()))
    assert NeuronSet.load(tmp_path / "list.json").coords == ((0, 2), (1, 4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("3", "it must hold"),
        ("[3]", "pairs (layer, neuron) of whole numbers, got 3"),
        ("[]", "it holds no neuron"),
        ('{"neurons": [], "shape": [2, 5]}', "it holds no neuron"),
        ('{"shape": [2, 5]}', "it must hold"),
        ('{"neurons": 3}', "neurons must be a list of [layer, neuron], got int"),
        ('{"neurons": [[0, 1, 2]]}', "pairs (layer, neuron) of whole numbers, got (0, 1, 2)"),
        ('{"neurons": [[0, 1.5]]}', "pairs (layer, neuron) of whole numbers, got (0, 1.5)"),
        ('{"neurons": [[0, 7]], "shape": [2, 5]}', "neuron must be in [0, 5), got 7"),
        ('{"neurons": [[0, 1]], "shape": [2]}', "shape must be [layers, neurons in each], got"),
        ("[" * 100_000, "maximum recursion depth"),
    ],
)
def test_what_is_no_file_of_neurons(tmp_path, text, says):
    (tmp_path / "mine.json").write_text(text)
    said = refusal(NeuronSet.parse, [str(tmp_path / "mine.json")])
    assert said.startswith(f"neurons of {tmp_path / 'mine.json'}: ") and says in said


def test_a_file_that_is_not_there(tmp_path):
    assert "No such file" in refusal(NeuronSet.load, tmp_path / "mine.json")


def test_ablate_zeroes_each_file_whole(folder, tmp_path):
    shape = shape_of(folder)
    one, other = written(tmp_path / "one.json", [[0, 1], [1, 3]], shape=shape), written(tmp_path / "other.json", [[1, 1]], shape=shape)
    options = ["--limit", "2", "--device", "cpu", "--draws", "1", "--out", str(tmp_path / "run")]
    assert main(["ablate", str(folder), "--neurons", str(one), str(other), "1.5", *options]) == 0
    results = Results.load(tmp_path / "run")
    (entry,) = results.section("sets").values()
    assert {name: point["neurons"] for name, point in entry["sets"].items()} == {"named neurons": 1, "one": 2, "other": 1}
    assert entry["tested_pairs_that_found"] is None  # nobody knows
    (panel,) = panels_of(results)
    (told,) = (each for each in panel.notes if "on which pairs they were found is not recorded" in each)
    assert "none of" not in told + panel.caption


@pytest.mark.parametrize("command", ["effects", "ablate", "patch", "examples"])
def test_a_set_of_another_models_shape(folder, tmp_path, capsys, monkeypatch, command):
    file = written(tmp_path / "mine.json", [[0, 1]], shape=[30, 1536])
    monkeypatch.setattr("tl_reward.cli.options.Data.load", None)  # before pairs are read, and models loaded
    said = command_refuses(capsys, command, folder, "--neurons", file, "--limit", "2", "--device", "cpu", "--out", tmp_path / "run")
    layers, width = shape_of(folder)
    assert f"neurons of {file}: these neurons are of a model with 30 layers of 1536, and this one has {layers} layers of {width}" in said
    assert not (tmp_path / "run").exists()


def test_ablate_wants_a_ranking_or_neurons(folder, tmp_path, capsys):
    file = written(tmp_path / "mine.json", [[0, 1]])
    for given in ([], ["--neurons", file, "--ranking", tmp_path]):
        assert "give either --ranking or --neurons" in command_refuses(capsys, "ablate", folder, *given, "--out", tmp_path / "run")
    again = tmp_path / "again"
    again.mkdir()
    said = command_refuses(capsys, "ablate", folder, "--neurons", file, written(again / "mine.json", [[0, 2]]), "--out", tmp_path / "run")
    assert "two sets are called 'mine'; rename a file" in said


@pytest.mark.parametrize("command", ["effects", "ablate", "patch", "examples"])
def test_a_set_of_another_model(folder, tmp_path, capsys, command):
    file = written(tmp_path / "mine.json", [[0, 1]], model="nobody")
    given = [command, folder, "--neurons", file, "--limit", "2", "--device", "cpu", "--out", tmp_path / "run"]
    said = command_refuses(capsys, *given)
    assert said == f"neurons of {file}: they are of the model 'nobody', and this one is good; --other-model takes them all the same"
    assert not (tmp_path / "run").exists()
    assert main([*map(str, given), "--other-model"]) == 0 and Results.load(tmp_path / "run").sections


def test_a_model_is_the_one_that_a_file_names_by_each_of_its_names(tmp_path):
    file = written(tmp_path / "mine.json", [[0, 1]])
    assert NeuronSet.load(file, models=["good · helpfulness", "good"]).coords == ((0, 1),)
    assert "'good', and this one is other" in refusal(NeuronSet.load, file, models=["other"])
    assert NeuronSet.load(written(tmp_path / "bare.json", [[0, 1]], model=None), models=["other"]).coords == ((0, 1),)


@pytest.mark.parametrize("option", [("--score", "rms"), ("--fractions", "0.5")])
def test_sets_are_zeroed_whole(folder, tmp_path, capsys, option):
    said = command_refuses(capsys, "ablate", folder, "--neurons", "0.1", *option, "--out", tmp_path / "run")
    assert said == "sets are zeroed whole, each as it is named; --score and --fractions are for --ranking"
