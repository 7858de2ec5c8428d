"""Bad arguments of functions and of commands; a command ends with status 2, one line on standard error, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.refusals import GOOD_ROW, jsonl, refusal

from tl_reward.analyses.discovery import Discovery
from tl_reward.cli import main
from tl_reward.measures.names import StatisticName, check_statistic
from tl_reward.measures.overlap import depth_thirds
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_neurons import record_discovery
from tl_reward.results.store import Results
from tl_reward.sites import Site, UnitSite

# Sites and neurons


def test_unknown_site():
    message = refusal(Site, 0, "mlp")
    assert message.startswith("site must be one of resid_pre, ")
    assert message.endswith(", got 'mlp'")


def test_unknown_statistic():
    assert refusal(check_statistic, "max") == "score must be one of mean, abs_mean, rms, probability, change, change_ms, norm, got 'max'"


def test_negative_layer():
    assert refusal(Site, -1, "mlp_post") == "layer must be at least 0, got -1"


@pytest.mark.parametrize("coord", [(-1, 0), (1, -2)])
def test_negative_coordinates_are_named(coord: tuple[int, int]):
    assert refusal(NeuronSet, [(0, 5), coord, (2, 3)]) == f"layers and neurons must be at least 0, got {coord}"


@pytest.mark.parametrize(("coord", "says"), [((2, 0), "layer must be in [0, 2), got 2"), ((1, 3), "neuron must be in [0, 3), got 3")])
def test_neuron_outside_the_model(coord: tuple[int, int], says: str):
    assert refusal(NeuronSet([(0, 0), coord]).mask, 2, 3) == says


def test_random_set_beside_a_neuron_outside_the_model():
    assert refusal(NeuronSet([(0, 7)]).matched_random, 4, seed=0) == "neuron must be in [0, 4), got 7"


def test_depth_of_a_layer_outside_the_model():
    assert refusal(depth_thirds, NeuronSet([(0, 0), (6, 0)]), 6) == "layer must be in [0, 6), got 6"


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0000001, 20.0, float("nan"), float("inf")])
def test_fraction(fraction: float):
    says, _, got = refusal(NeuronSet.top, torch.zeros(2, 3), fraction=fraction).rpartition(" ")
    assert says == "fraction must be in (0, 1], got"
    assert float(got) == pytest.approx(fraction, abs=0, rel=0, nan_ok=True)  # not "got 1" for a little more than 1


@pytest.mark.parametrize("k", [-1, 7])
def test_k(k: int):
    assert refusal(NeuronSet.top, torch.zeros(2, 3), k=k) == f"k must be in [0, 6], got {k}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite(value: float):
    # Even where they would not be among the top.
    score = torch.tensor([[1.0, value], [value, 2.0]])
    assert refusal(NeuronSet.top, score, k=1) == "2 of 4 scores are not finite"


# The command line


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """A run folder of `discover` on two models of 2 layers with 4 neurons."""
    made = Results(provenance={"seed": 0})
    for name in ("helpful", "harmless"):
        by_side: dict[tuple[UnitSite, StatisticName], torch.Tensor] = {("mlp_gate", "mean"): torch.arange(16.0).reshape(2, 2, 4)}
        record_discovery(made, name, "d", Discovery(by_side=by_side, pairs=("0" * 16,), tokens=2))
    return made.save(tmp_path / "found")


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def cli_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail; returns its line. Checks that nothing in the folder changed."""

    def run(*args: str | Path) -> str:
        before = tree(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("tl-reward: ")
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        assert tree(tmp_path) == before
        return err

    return run


def test_command_that_works(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # Guards the tests below: what they refuse is the input, and not the command.
    assert main(["compare", str(found), "--fraction", "0.5", "--out", str(tmp_path / "deep/out")]) == 0
    assert capsys.readouterr().err == ""
    assert Results.load(tmp_path / "deep/out").section("overlap")
    assert sorted(item.name for item in (tmp_path / "deep").iterdir()) == ["out"]


@pytest.mark.parametrize("command", ["score", "discover", "train"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--pairs", "{folder}/missing.jsonl"], "missing.jsonl: no such file"),
        (["--pairs", "{folder}/schema.jsonl"], "unknown schema: found text, and the first line of a table must name its columns; "),
        (["--pairs", "{folder}/good.jsonl", "--subset", "maths"], "no subset 'maths'; it has chat"),
        (["--pairs", "{folder}/schema.jsonl"], "columns of other names: --columns prompt=… chosen=… rejected=…"),
        (["--pairs", "{folder}/good.jsonl", "--columns", "prompt"], "--columns must name each column as prompt=NAME, got 'prompt'"),
        (["--pairs", "{folder}/good.jsonl", "--columns", "prompt=question"], "good.jsonl:1: no column 'question'; it has prompt, chosen,"),
        (
            ["--pairs", "{folder}/good.jsonl", "--columns", "answer=chosen"],
            "columns is the other way round: --columns chosen=answer says which",
        ),
        (["--pairs", "{folder}/good.jsonl", "--limit", "0"], "limit must be at least 1"),
        (["--pairs", "{folder}/good.jsonl", "{folder}/bad.jsonl"], "bad.jsonl:1: malformed JSON"),
    ],
)
def test_pairs_on_the_command_line(command: str, options: list[str], says: str, tmp_path: Path, cli_refusal: Callable[..., str]):
    jsonl(tmp_path / "schema.jsonl", {"text": "Hi"})
    jsonl(tmp_path / "good.jsonl", GOOD_ROW | {"subset": "chat"})
    (tmp_path / "bad.jsonl").write_text("{\n")
    models = [] if command == "train" else ["helpful"]
    filled = [option.format(folder=tmp_path) for option in options]
    assert says in cli_refusal(command, *models, *filled, "--out", tmp_path / "deep/out")


@pytest.mark.parametrize("fraction", ["0", "1.5", "nan"])
def test_fraction_on_the_command_line(fraction: str, found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    line = cli_refusal("compare", found, "--fraction", fraction, "--out", tmp_path / "deep/out")
    assert "fraction must be in (0, 1], got " + fraction in line


@pytest.mark.parametrize(
    "command",
    [["score", "helpful"], ["discover", "helpful"], ["ablate", "helpful", "--ranking", "found"], ["compare", "found"], ["demo"]],
    ids=lambda command: command[0],
)
def test_run_folder_that_exists(command: list[str], found: Path, cli_refusal: Callable[..., str]):
    assert "exists" in cli_refusal(*command, "--out", found)


def test_folder_with_other_files_is_not_overwritten(found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert "it holds notes.txt" in cli_refusal("compare", found, "--overwrite", "--out", tmp_path / "mine")


def test_output_inside_a_file(found: Path, cli_refusal: Callable[..., str]):
    assert "results.json" in cli_refusal("compare", found, "--fraction", "0.5", "--out", found / "results.json" / "out")


@pytest.mark.parametrize("command", ["compare", "ablate", "dashboard"])
def test_folder_that_is_no_run(command: str, tmp_path: Path, cli_refusal: Callable[..., str]):
    arguments = {"compare": [tmp_path], "ablate": ["helpful", "--ranking", tmp_path], "dashboard": [tmp_path]}[command]
    assert "no run folder" in cli_refusal(command, *arguments, "--out", tmp_path / "out")


def test_score_that_was_not_computed(found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    line = cli_refusal("compare", found, "--score", "rms", "--out", tmp_path / "out")
    assert "no score 'rms' at 'mlp_gate'; statistics there: mean" in line


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ("change", "no score 'change' at 'mlp_gate': it needs a base model to compare with"),
        ("entropy", "entropy needs pairs of two or more objectives, got none"),
        ("welch_t", "it needs two transcripts on each side"),
        ("attribution", "this run has no attribution; it has discovery"),
    ],
)
def test_ranking_without_what_it_needs(score: str, says: str, found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    assert says in cli_refusal("ablate", "helpful", "--ranking", found, "--score", score, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give either --neurons or --sets"),
        (["--neurons", "1.2", "--sets", "found"], "give either --neurons or --sets"),
        (["--neurons", "20"], "a neuron is named layer.neuron, such as 20.131, and a file of neurons ends in .json; got '20'"),
        (["--neurons", "1.x"], "a neuron is named layer.neuron, such as 20.131, and a file of neurons ends in .json; got '1.x'"),
        (["--sets", "{found}"], "this run has no tension; it has discovery"),
        (["--sets", "{found}", "--kind", "mean"], "sets are zeroed; kind mean is for --neurons"),
    ],
)
def test_effects_on_the_command_line(options: list[str], says: str, found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    filled = [option.format(found=found) for option in options]
    assert says in cli_refusal("effects", "helpful", *filled, "--out", tmp_path / "out")


def test_model_that_the_run_does_not_have(found: Path, tmp_path: Path, cli_refusal: Callable[..., str]):
    line = cli_refusal("ablate", "mixed", "--ranking", found, "--out", tmp_path / "out")
    assert "this run has no discovery of 'mixed'; it has helpful, harmless" in line


def test_page_of_a_run_with_nothing_to_show(tmp_path: Path, cli_refusal: Callable[..., str]):
    assert "nothing to show" in cli_refusal("dashboard", Results().save(tmp_path / "run"))


def test_page_that_exists(found: Path, cli_refusal: Callable[..., str]):
    (found / "dashboard.html").write_text("mine")
    assert "exists" in cli_refusal("dashboard", found)


def test_models_of_one_name(tmp_path: Path, cli_refusal: Callable[..., str]):
    assert "different names" in cli_refusal("score", "a/helpful", "b/helpful", "--out", tmp_path / "out")
