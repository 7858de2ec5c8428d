"""The README's second example: a model of one's own, a CSV file, neurons, an ablation, and the page. On a local stand-in for both."""

import csv
import re
from pathlib import Path

import pytest

from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.results.store import Results

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_of_a_model_and_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "my.csv" in block]
    assert len(code.splitlines()) <= 12
    model = tmp_path / "your-name" / "your-reward-model"
    tiny_hf_model().save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    with (tmp_path / "my.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "good", "bad"), *((f"What is {i} + 1?", f"It is {i + 1}.", "No idea.") for i in range(8))])
    monkeypatch.chdir(tmp_path)
    exec("import tl_reward\n" + code, {})
    run = Results.load(tmp_path / "runs" / "my-model")
    assert [*run.sections] == ["discovery", "ablation"]
    (entry,) = run.section("ablation").values()
    assert entry["tested_pairs_that_found"] == 0 and [point["fraction"] for point in entry["points"]] == [0.02, 0.1]
    assert "<!doctype html>" in (tmp_path / "my-model.html").read_text(encoding="utf-8")[:200].lower()
    assert "fraction (share of all neurons)" in capsys.readouterr().out


def test_the_readme_is_two_screens():
    assert len(README.splitlines()) <= 140
