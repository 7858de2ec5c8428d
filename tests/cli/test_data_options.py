"""Data of one's own on the command line: a table with names of its own, a folder, a template for a tokenizer that has none."""

import warnings
from pathlib import Path

import pytest

from tl_reward.cli import main
from tl_reward.data.text import NoTemplate, given_template, set_template
from tl_reward.errors import InputError
from tl_reward.model.checkpoints import loading
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.results.record_models import record_model
from tl_reward.results.store import Results

TABLE = "question,good,bad\nHi,Hello.,Go away.\nBye,See you.,Finally.\n"
COLUMNS = ("--columns", "prompt=question", "chosen=good", "rejected=bad")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_hf_model().save_pretrained(tmp_path / "mine")
    byte_tokenizer().save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_table_of_ones_own(model: Path, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "pairs.csv").write_text(TABLE)
    for source, name in ((data / "pairs.csv", "data/pairs"), (data, f"{tmp_path.name}/data")):
        out = tmp_path / f"out-{source.name}"
        options = ["--pairs", str(source), *COLUMNS, "--template", "plain", "--device", "cpu", "--out", str(out)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", NoTemplate)
            assert main(["score", str(model), *options]) == 0
        found = Results.load(out)
        assert [(entry["model"], entry["dataset"], entry["pairs"]) for entry in found.section("scores").values()] == [("mine", name, 2)]
        assert found.provenance["models"]["mine"]["template"] == "plain"


def test_a_template_that_is_none_is_refused_before_a_model_is_loaded(model: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    (tmp_path / "pairs.csv").write_text(TABLE)
    with pytest.raises(SystemExit):
        main(
            ["score", str(model), "--pairs", str(tmp_path / "pairs.csv"), *COLUMNS, "--template", "chatml", "--out", str(tmp_path / "out")]
        )
    said = capsys.readouterr().err
    assert (
        'template must be "hh", "plain" or a file with a Jinja template, got \'chatml\': no such file' in said
        and len(said.splitlines()) == 1
    )


def test_a_tokenizer_without_a_template_warns_once_where_the_model_is_of_others(model: Path):
    with pytest.warns(NoTemplate, match="mine: its tokenizer has no chat template, so transcripts are written as HH-RLHF turns"):
        HookedRewardModel.from_pretrained(model, device="cpu")
    (model / "training.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoTemplate)
        HookedRewardModel.from_pretrained(model, device="cpu")  # once said
        from_here = model.rename(model.with_name("trained"))
        HookedRewardModel.from_pretrained(
            from_here, device="cpu"
        )  # trained here: it says by having no template that it reads HH-RLHF turns
        (from_here / "training.json").unlink()
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        tokenizer.save_pretrained(from_here.rename(model.with_name("chats")))
        HookedRewardModel.from_pretrained(model.with_name("chats"), device="cpu")  # its own template


def test_runs_with_two_templates_are_not_merged(model: Path):
    runs = [Results(), Results()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTemplate)
        loaded = HookedRewardModel.from_pretrained(model, device="cpu")
    assert loaded.tokenizer is not None
    record_model(runs[0], "mine", loaded)
    set_template(loaded.tokenizer, "hh")  # what it reads without a template
    record_model(runs[0], "mine", loaded)
    set_template(loaded.tokenizer, "plain")
    record_model(runs[1], "mine", loaded)
    with pytest.raises(InputError, match="template differ"):
        Results.merge(runs)


def test_a_template_given_at_load_is_the_one_that_is_set(model: Path, tmp_path: Path, monkeypatch):
    jinja = tmp_path / "mine.jinja"
    jinja.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTemplate)
        plain = load(model, device="cpu")
    for template in ("hh", "plain", jinja, str(jinja)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", NoTemplate)
            given = load(model.rename(model.with_name("mine again")), device="cpu", template=template)
        model.with_name("mine again").rename(model)
        assert plain.tokenizer is not None and given.tokenizer is not None
        set_template(plain.tokenizer, template)
        assert given.tokenizer.chat_template == plain.tokenizer.chat_template
        assert given_template(given.tokenizer) == (None if template == "hh" else given_template(plain.tokenizer))
    monkeypatch.setattr(loading, "_hf_model", lambda *args, **kwargs: pytest.fail("read"))
    for wrong in ("chatml", tmp_path / "none.jinja"):
        with pytest.raises(InputError, match='template must be "hh", "plain" or a file'):
            load(model, device="cpu", template=wrong)


def test_a_missing_template_is_said_in_one_line_as_it_is_typed(model: Path, tmp_path: Path, capsys):
    place = model.rename(model.with_name("unsaid"))
    (tmp_path / "pairs.csv").write_text(TABLE)
    options = ("--pairs", str(tmp_path / "pairs.csv"), *COLUMNS, "--device", "cpu", "--out", str(tmp_path / "out"))
    assert main(["score", str(place), *options]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line.lower()]
    assert said.startswith(f"warning: {place}: its tokenizer has no chat template, so transcripts are written as HH-RLHF turns")
    assert said.endswith('say on which with --template … ("hh", "plain", or a file with a Jinja template)')
