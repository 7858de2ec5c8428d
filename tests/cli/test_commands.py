"""What commands refuse before they work, and keep when they are cut short."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tl_reward.cli import main
from tl_reward.cli.options import Output, Running
from tl_reward.data.readers import load_pairs
from tl_reward.devices import check_device
from tl_reward.errors import InputError
from tl_reward.model import checkpoints
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.results.record_neurons import record_scores
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.show.console import Console
from tl_reward.show.run_tables import summary

PAIRS = load_pairs("embedded", split="test", limit=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reward model on disk."""
    place = tmp_path_factory.mktemp("models") / "good"
    tiny_hf_model().save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    (place / "training.json").write_text("{}")  # one that is from here, so that it warns of no template
    return place


def line_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and len(said.splitlines()) == 1
    return said


def test_all_models_are_looked_at_before_one_is_run(folder, tmp_path, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", lambda *args, **kwargs: loaded.append(args))
    (tmp_path / "bad").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    for bad, says in (("bad", "bad: no model found"), ("other", "bert"), ("nosuch", "nosuch: no such folder here, not embedded")):
        monkeypatch.setattr("tl_reward.model.checkpoints.folders.snapshot_download", lambda *args, **kwargs: 1 / 0)
        assert says in line_of(capsys, "score", folder, tmp_path / bad, "--out", tmp_path / "out")
    assert loaded == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["attribute", "--top", "1", "--random", "1"], "random must be at least 3"),
        (["attribute", "--methods", "gradient", "mean", "--site", "attn_z"], "method mean is for neurons"),
        (["tension", "--method", "direct"], "method direct has no standard error"),
        (["effects", "--neurons", "0.1", "--kind", "mean", "--site", "attn_z"], "kind mean is for neurons"),
    ],
)
def test_refused_before_a_model_is_loaded(arguments: list[str], says: str, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", None)
    command, *options = arguments
    assert says in line_of(capsys, command, folder, *options, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["attribute", "--random", "97"], "top and random must be in [0, 96], got 16 and 97"),
        (["tension", "--fraction", "0.001"], "fraction 0.001 of 96 neurons is less than one neuron"),
        (["effects", "--neurons", "0.99", "--kind", "mean"], "neuron must be in [0, 48), got 99"),
    ],
)
def test_refused_before_the_model_runs(arguments: list[str], says: str, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HookedRewardModel, "forward", None)
    command, *options = arguments
    assert says in line_of(capsys, command, folder, *options, "--out", tmp_path / "out")


def test_what_is_done_is_kept(tiny, tmp_path, capsys):
    def cut_short(error: BaseException) -> None:
        with Output(tmp_path / "run").run() as results:
            record_scores(results, "first", "pairs", score(tiny, PAIRS))
            raise error

    for error in (InputError("second: no model"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            cut_short(error)
        assert not (tmp_path / "run").exists()
        kept = Results.load(tmp_path / "run.unfinished")
        assert list(kept.section("scores")) == ["first · pairs"] and kept.provenance["unfinished"] is True
        assert f"kept in {tmp_path / 'run.unfinished'}" in capsys.readouterr().err


def test_nothing_is_kept_of_nothing(tmp_path):
    with pytest.raises(InputError), Output(tmp_path / "run").run():
        raise InputError("first: no model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["cuda:99", "mps", "xla", "meta", "nonsense", "cuda:x", ""])
def test_a_device_that_is_not_here(device: Any):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is here")
    with pytest.raises(InputError, match=r"no device .* there is cpu"):
        check_device(device)


def test_devices_that_are_here():
    for device in (None, "cpu", torch.device("cpu"), "cpu:0"):
        check_device(device)


def test_a_device_on_the_command_line(folder, tmp_path, capsys):
    assert "no device 'cuda:99' on this machine; there is cpu" in line_of(
        capsys, "score", folder, "--device", "cuda:99", "--out", tmp_path / "out"
    )


def test_what_a_run_lacks_names_the_folder_and_the_command(folder, tiny, tmp_path, capsys):
    results = Results()
    record_scores(results, "good", "pairs", score(tiny, PAIRS))
    run = results.save(tmp_path / "scored")
    said = line_of(capsys, "ablate", folder, "--ranking", run, "--out", tmp_path / "out")
    assert f"{run}: this run has no discovery; it has scores (tl-reward discover makes one)" in said


def test_comparing_one_model_says_what_is_needed(folder, tmp_path, capsys):
    assert main(["discover", str(folder), "--device", "cpu", "--limit", "2", "--out", str(tmp_path / "found")]) == 0
    capsys.readouterr()
    said = line_of(capsys, "compare", tmp_path / "found", "--out", tmp_path / "out")
    assert "it has neurons of good alone; two models are compared" in said and "tl-reward discover MODEL --out RUN" in said


def test_tables_at_forty_columns(tiny, tmp_path):
    results = Results()
    name, dataset = "qwen3-reward-4b-checkpoint-500", "embedded, test, harmless"
    record_scores(results, name, dataset, score(tiny, PAIRS))
    margin = f"{score(tiny, PAIRS).mean_margin().value:+.3f}"
    for width in (40, 200):
        with (tmp_path / "said").open("w") as file:
            summary(results, Console(width=width, file=file, markup=False))
        said = " ".join((tmp_path / "said").read_text().split())
        assert [part for part in (name, dataset, margin) if part not in said] == []
        assert max(map(len, (tmp_path / "said").read_text().splitlines())) <= width


def test_loading_says_nothing(folder, capsys, recwarn):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    HookedRewardModel.from_pretrained(folder, device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capsys.readouterr() == ("", "")
    assert [each.message for each in recwarn if issubclass(each.category, FutureWarning)] == []


@pytest.mark.parametrize("inside", [True, False], ids=["being moved into place", "in place"])
def test_the_state_of_examples_goes_once_their_run_is_written(inside: bool, tmp_path, capsys):
    """A command that was killed before it deleted its state leaves that to the next one."""
    run, state = tmp_path / "run", tmp_path / "run.partial"
    state.write_text("state")
    Results().save(run)
    if inside:
        (run / ".saved").mkdir()
        for name in ("results.json", "tensors.safetensors"):
            (run / name).rename(run / ".saved" / name)
    with pytest.raises(SystemExit):
        main(["examples", "nosuch", "--neurons", "0.1", "--out", str(run)])
    assert "exists; choose another folder" in capsys.readouterr().err
    assert not state.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scroe"], "no command 'scroe'; did you mean score?"),
        (["score", "helpful", "--overlog", "drop"], "score has no option --overlog; did you mean --overlong?"),
        (["score", "helpful", "--limit", "four"], "--limit must be a whole number or None, got 'four'"),
        (["ablate", "helpful", "--ranking", "r", "--fractions=0.1", "lots"], "--fractions must be a number, or several, got"),
        (["score", "helpfull"], "no model 'helpfull': no such folder here; did you mean helpful?"),
        (["score"], "at least one model is needed"),
        (["score", "helpful", "helpful"], "models must have different names"),
    ],
)
def test_names_and_values_are_refused_without_torch(arguments: list[str], says: str):
    script = f"import sys; from tl_reward.cli import main\ntry: main({[*arguments, '--out', 'x']})\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1 and done.stdout == "False\n"


def test_the_base_of_adapters_is_that_of_adapters_alone(folder, tmp_path, capsys, monkeypatch):
    loaded: list[tuple[str, str | None]] = []
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", lambda source, base, **_: loaded.append((source, base)))
    monkeypatch.setattr("tl_reward.model.checkpoints.is_adapter", lambda source: "adapter" in source)
    monkeypatch.setattr("tl_reward.model.checkpoints.check_reward_model", lambda *_, **__: {})
    running = Running(adapter_base=str(tmp_path / "base"))
    for source in (str(folder), "an/adapter"):
        running.load(source)
    assert loaded == [(str(folder), None), ("an/adapter", str(tmp_path / "base"))]
    assert list(running.named([str(folder), "an/adapter"])) == ["good", "adapter"]
    with pytest.raises(InputError, match="--adapter-base is for adapters, and good is none"):
        running.named([str(folder)])
    assert "--adapter-base is for adapters" in line_of(capsys, "score", folder, "--adapter-base", "x", "--out", tmp_path / "out")


def test_a_model_is_looked_at_once(folder, tmp_path, capsys, monkeypatch):
    looked = []
    check = checkpoints.check_reward_model
    monkeypatch.setattr(checkpoints, "check_reward_model", lambda *given, **options: looked.append(given) or check(*given, **options))
    assert main(["effects", str(folder), "--neurons", "0.1", "--device", "cpu", "--limit", "2", "--out", str(tmp_path / "out")]) == 0
    assert len(looked) == 1
    capsys.readouterr()


def test_a_limit_that_leaves_one_objective_is_refused_before_a_model_is_loaded(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", None)
    said = line_of(capsys, "tension", folder, "--limit", "10", "--out", tmp_path / "out")
    assert "got 10 pairs of helpful (a limit keeps the first rows of a file, which may be of one objective: give a larger one" in said
