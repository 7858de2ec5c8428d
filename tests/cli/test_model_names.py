"""NAME=MODEL: two folders of one name are compared, and the name goes wherever a model's name goes."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import command_refuses

from tl_reward.cli import main
from tl_reward.cli.options import Running, named
from tl_reward.cli.serve import ServeCommand
from tl_reward.errors import InputError
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.results.store import Results
from tl_reward.show.page.panels import panels_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, each in a folder called checkpoint-500."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("first", "second")):
        place = folder / name / "checkpoint-500"
        tiny_hf_model(seed=seed).save_pretrained(place)
        byte_tokenizer().save_pretrained(place)
        (place / "training.json").write_text("{}")
    return folder


def refused(*models: str) -> str:
    with pytest.raises(InputError) as caught:
        named(models)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_what_a_model_is_called(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b").mkdir()
    assert named(["a=b"]) == {"a=b": "a=b"}  # a folder that is called so
    assert named(["a=c"]) == {"a": "c"}
    assert named(["mine=lr=1e-4/checkpoint"]) == {"mine": "lr=1e-4/checkpoint"}
    assert named(["./lr=1e-4/checkpoint", "runs/x=y"]) == {"checkpoint": "./lr=1e-4/checkpoint", "x=y": "runs/x=y"}
    assert named(["two words=helpful", "größer=owner/rm", "rm"]) == {"two words": "helpful", "größer": "owner/rm", "rm": "rm"}
    assert named(["helpful=runs/mine", "harmless=helpful/x"]) == {"helpful": "runs/mine", "harmless": "helpful/x"}


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (["=x"], "a model's name must be printable, not blank, and without blanks around it, got '' in '=x'"),
        ([" =x"], "must be printable, not blank"),
        ([" a=x"], "without blanks around it, got ' a'"),
        (["a\tb=x"], r"must be printable, .* got 'a\tb'"),
        (["a\x1b[1m=x"], "must be printable"),
        (["a="], "no model ''"),
        (["a=  "], "no model '  '"),
        (["a=helpfull"], "no model 'helpfull': no such folder here; did you mean helpful?"),
        (["a=x", "a=y"], "models must have different names, got a twice; name them: "),
        (["helpful", "helpful"], "models must have different names, got helpful twice"),
        (["new=old/rm", "old=new"], "new is the path of another of the models: give old/rm another name"),
    ],
)
def test_names_that_are_refused(models: list[str], says: str):
    message = refused(*models)
    assert says.split(".*")[0].replace("r'", "'") in message or says.split(", .*")[0] in message


def test_two_of_one_name_are_told_how_to_be_called(runs: Path):
    both = [str(runs / name / "checkpoint-500") for name in ("first", "second")]
    message = refused(*both)
    assert message.startswith("models must have different names, got checkpoint-500 twice; name them: ")
    typed = shlex.split(message.rpartition("name them: ")[2])
    assert named(typed) == {"first-checkpoint-500": both[0], "second-checkpoint-500": both[1]}
    alike = refused("one/a b/rm", "two/a b/rm")
    assert named(shlex.split(alike.rpartition("name them: ")[2])) == {"rm-1": "one/a b/rm", "rm-2": "two/a b/rm"}


def test_the_name_goes_wherever_the_model_does(runs: Path, tmp_path: Path, capsys):
    first, second = (f"{name}={runs / name / 'checkpoint-500'}" for name in ("first", "second"))
    data = ("--device", "cpu", "--limit", "2")

    def run(*arguments: Any, out: str) -> Results:
        assert main([str(each) for each in (*arguments, *data, "--out", tmp_path / out)]) == 0
        return Results.load(tmp_path / out)

    found = run("discover", first, second, out="found")
    assert set(found.provenance["models"]) == set(found.section("discovery")) == {"first", "second"}
    paths = {name: model["path"] for name, model in found.provenance["models"].items()}
    assert paths == {name: str((runs / name / "checkpoint-500").resolve()) for name in ("first", "second")}
    made = run("ablate", second, "--ranking", tmp_path / "found", "--fractions", "0.1", "--draws", "1", out="ablated")
    assert list(made.provenance["models"]) == ["second"]
    assert "weights differ" in command_refuses(
        capsys, "ablate", f"first={runs / 'second' / 'checkpoint-500'}", "--ranking", tmp_path / "found", *data, "--out", tmp_path / "no"
    )  # the run's first is not this one
    assert "checkpoint-500" in command_refuses(
        capsys, "ablate", runs / "second" / "checkpoint-500", "--ranking", tmp_path / "found", *data, "--out", tmp_path / "no"
    )
    patched = run(
        "patch-models", first, second, "--find-limit", "2", "--fractions", "0.1", "--draws", "1", "--top", "0", "--random", "0", out="moved"
    )
    assert set(patched.provenance["models"]) == {"first", "second"}
    page = "".join(str(panel.figure.to_json()) for panel in panels_of(Results.merge([found, made])))
    assert "second" in page and "checkpoint-500" not in page


def test_a_name_beside_an_intervention(runs: Path):
    running = Running(intervention=("tl_reward:ZeroAblation",))
    assert running.label("first") == "first + ZeroAblation"


def test_the_live_page_takes_names_templates_and_bases(runs: Path, tmp_path: Path, monkeypatch):
    server = pytest.importorskip("tl_reward.show.live.server")
    loaded: list[tuple[str, str | None]] = []
    served: list[Any] = []
    monkeypatch.setattr("tl_reward.show.page.build_page", lambda *_, **__: "page")
    monkeypatch.setattr(server, "serve", lambda *args, **kwargs: served.append((args, kwargs)))
    monkeypatch.setattr(
        Running,
        "load",
        lambda self, source: loaded.append((source, self.template)) or pytest.importorskip("tl_reward").load(source, device="cpu"),
    )
    place = str(runs / "first" / "checkpoint-500")
    Results().save(tmp_path / "run")
    ServeCommand((tmp_path / "run",), models=(f"mine={place}",), template="plain").run()
    assert loaded == [(place, "plain")] and list(served[0][0][0]) == ["mine"] and served[0][1]["sources"] == {"mine": place}
    with pytest.raises(InputError, match="--adapter-base is for adapters, and mine is none"):
        ServeCommand((tmp_path / "run",), models=(f"mine={place}",), adapter_base="x").run()


def test_a_base_that_is_elsewhere_is_said_as_it_is_typed(runs: Path, tmp_path: Path, capsys, monkeypatch):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_hf_model(), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["score"]))
    model.peft_config["default"].base_model_name_or_path = "/their/machine/base"
    model.save_pretrained(str(tmp_path / "adapter"))
    base = shutil.copytree(runs / "first" / "checkpoint-500", tmp_path / "base")
    command = ("score", tmp_path / "adapter", "--device", "cpu", "--limit", "2", "--out", tmp_path / "out")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = command_refuses(capsys, *command)
    assert "its base was not found: /their/machine/base" in line and line.endswith("say so with --adapter-base …")
    assert "score has no option --base; did you mean --adapter-base?" in command_refuses(capsys, *command, "--base", base)
    assert main([str(each) for each in (*command, "--adapter-base", base, "--template", "hh")]) == 0
