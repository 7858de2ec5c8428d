"""The page as a file: what is in it, that a run's text is nowhere markup, and what is written where."""

import re
import subprocess
import sys

import numpy as np
import plotly
import plotly.graph_objects as go
import pytest
from helpers.page_runs import TEXTS, block, document, random_run, tiny_run

from tl_reward.analyses.discovery import discover
from tl_reward.data.readers import load_pairs
from tl_reward.data.reading import in_words
from tl_reward.errors import InputError
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.results.disk.folder import check_run_folder
from tl_reward.results.record_neurons import record_discovery
from tl_reward.results.store import Results
from tl_reward.running.batches.batching import encode_for
from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.notes import notes_of
from tl_reward.show.page import build_page, write_page
from tl_reward.show.page.blocks import ASSETS, halves

HOSTILE = "</script><script>document.title='run'</script><!--<script>\u2028 %%SCRIPT%%"


@pytest.fixture(scope="module")
def whole():
    return build_page(tiny_run())


def test_the_page_holds_every_figure_and_asks_for_nothing(whole):
    figures, manifest = document(whole, "panels"), document(whole, "manifest")
    assert len(figures) == len(manifest["panels"]) >= 10
    assert all(isinstance(go.Figure(figure), go.Figure) for figure in figures)
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[^>]*>", whole) == ['<link rel="icon" href="data:,">']
    assert "default-src 'none'" in whole and "connect-src 'none'" in whole and "showSendToCloud: false" in whole
    assert "connect-src 'self'" in build_page(tiny_run(), live=True)


def test_the_numbers_of_every_neuron_are_there_to_three_digits(whole):
    columns, entries = columns_of(tiny_run()), document(whole, "manifest")["columns"]
    assert [entry["key"] for entry in entries] == [column.key for column in columns]
    for column, entry in zip(columns, entries, strict=True):
        planes = np.frombuffer(block(whole, entry["values"]), np.uint8).reshape(2, -1)
        values = planes.T.copy().view("<f2")[:, 0].astype(np.float64) * entry["scale"] + entry["neutral"]
        np.testing.assert_allclose(values, column.values.flatten(), rtol=5e-4, atol=1e-9 * np.abs(column.values).max())


def test_halves_keep_zeros_and_what_is_not_finite():
    values, scale = halves(np.array([0.0, np.inf, -2.0]))
    assert values[0] == 0 and np.isposinf(values[1]) and values[2] * scale == -2
    assert halves(np.zeros(3))[1] == 1


def test_the_plotly_that_travels_with_the_page_is_the_one_that_makes_its_figures(whole):
    script = block(whole, "plotly").decode()
    ours = re.search(r"plotly\.js \(cartesian - minified\) v(\S+)", script)
    theirs = re.search(r"plotly\.js v(\S+)", plotly.offline.get_plotlyjs()[:200])
    assert ours is not None and theirs is not None and ours[1].split(".")[0] == theirs[1].split(".")[0]
    assert (ASSETS / "vendor" / "PLOTLY_LICENSE").read_text().startswith("MIT License")


def test_what_was_not_computed_is_said_with_the_command(whole):
    lacks = [each["command"].split()[1] for each in document(whole, "manifest")["missing"]]
    assert lacks == ["patch", "patch-models", "lens"]
    scores = Results({"scores": tiny_run().section("scores")}, tiny_run().tensors)
    missing = document(build_page(scores), "manifest")["missing"]
    assert {"what": "which texts drive each neuron", "command": "tl-reward examples helpful --ranking RUN --out runs/examples"} in missing
    assert len(missing) == 12


@pytest.mark.parametrize(
    ("label", "told", "command"),
    [
        ("helpful", {"path": "/somebody/tl_reward/model/adapters/helpful"}, "score helpful --out"),
        ("mine", {"path": "/somebody/models/x"}, "score mine=MODEL --out"),
        ("armo", {"path": "owner/armo"}, "score armo=owner/armo --out"),
        ("armo · safety", {"path": "owner/armo", "output": "safety"}, "score armo=owner/armo --output safety --out"),
        ("old", {}, "score old --out"),
    ],
)
def test_a_command_for_what_is_missing_names_the_model_as_it_is_taken(label, told, command):
    entry = tiny_run().section("tension")
    results = Results(
        {"tension": {name: {**each, "model": label} for name, each in entry.items()}}, tiny_run().tensors, {"models": {label: told}}
    )
    assert any(command in each["command"] for each in document(build_page(results), "manifest")["missing"])


def test_a_test_on_the_pairs_that_found_the_neurons_is_pointed_out(whole):
    assert any("CAUTION: 2 of 6 tested pairs" in panel["caption"] for panel in document(whole, "manifest")["panels"])


def test_text_of_a_run_is_nowhere_markup():
    text = build_page(random_run(2, 20, models=(HOSTILE,), shown=3), title=HOSTILE)
    plain = build_page(random_run(2, 20, models=("plain",), shown=3), title="plain")
    assert re.findall(r"</?script", text) == re.findall(r"</?script", plain) and "<!--" not in text
    assert document(text, "manifest")["models"][0]["name"] == HOSTILE
    shown = document(text, "examples-0")["transcripts"]
    assert [transcript["tokens"][2] for transcript in shown] == list(TEXTS)


def test_token_activations_are_kept_to_a_63rd_of_the_largest():
    run = random_run(2, 20, shown=3)
    text = build_page(run)
    found, levels = document(text, "examples-0"), np.frombuffer(block(text, "activations-0"), np.int8)
    activation = run.tensor("examples", "mixed · random numbers", "shown/activation").float().numpy()
    for i, example in np.ndindex(3, 10):
        start = found["starts"][i][example]
        assert found["largest"][i][example] == pytest.approx(np.abs(activation[(i * 10 + example) * 5 :][:5]).max(), rel=1e-4)
        exact = activation[(i * 10 + example) * 5 :][:5]
        np.testing.assert_allclose(levels[start : start + 5] / 63 * np.abs(exact).max(), exact, atol=np.abs(exact).max() / 125)


def test_write_page_is_atomic_and_does_not_overwrite(tmp_path):
    path = write_page(tiny_run(), tmp_path / "page.html")
    with pytest.raises(InputError, match="exists"):
        write_page(tiny_run(), path)
    with pytest.raises(InputError, match="nothing to show"):
        write_page(Results(), tmp_path / "empty.html")
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(InputError, match=r"such as page\.html"):
        write_page(tiny_run(), tmp_path / "page.data")
    (tmp_path / "page.data").mkdir()
    (tmp_path / "page.data" / "precious.txt").write_text("kept")
    with pytest.raises(InputError, match="no page's data folder"):
        write_page(tiny_run(), path, overwrite=True)
    assert (tmp_path / "page.data" / "precious.txt").read_text() == "kept"


def test_a_large_page_is_a_folder_and_a_small_one_in_its_place_leaves_none(tmp_path, monkeypatch):
    run = random_run(2, 20, shown=3)
    monkeypatch.setattr("tl_reward.show.page.document.LARGEST_FILE", 1000)
    path = write_page(run, tmp_path / "run" / "dashboard.html")
    (data,) = (tmp_path / "run" / "dashboard.data").iterdir()
    files = {file.stem for file in data.iterdir()}
    assert {"manifest", "plotly", "panels", "column-0", "examples-0"} <= files and path.stat().st_size < 150_000
    with pytest.raises(InputError, match="exists"):
        write_page(run, path)
    run.save(tmp_path / "other")
    path.rename(tmp_path / "other" / "dashboard.html")
    (tmp_path / "run" / "dashboard.data").rename(tmp_path / "other" / "dashboard.data")
    check_run_folder(tmp_path / "other", overwrite=True)  # a page is no foreign file
    monkeypatch.undo()
    write_page(run, tmp_path / "other" / "dashboard.html", overwrite=True)
    assert not (tmp_path / "other" / "dashboard.data").exists()


def test_a_page_is_built_without_the_model_code(tmp_path):
    random_run(2, 20, shown=3).save(tmp_path / "run")
    code = f"""
import sys
from tl_reward.results.store import Results
from tl_reward.show.page import write_page
write_page(Results.load({str(tmp_path / "run")!r}), {str(tmp_path / "page.html")!r})
assert not {{"transformer_lens", "transformers", "tl_reward.model.reward_model"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_page_says_which_pairs_were_left_out_and_why():
    results, pairs = Results(), load_pairs("embedded", split="test", limit=6)
    shorter = sorted(len(row.ids) for row in encode_for(tiny_reward_model(), pairs).rows)[8]
    found = discover(tiny_reward_model(), pairs, max_length=shorter)
    record_discovery(results, HOSTILE, "d", found)
    assert found.reading is not None and 0 < found.reading.dropped < 6
    text = build_page(results)
    (note,) = document(text, "manifest")["notes"]
    assert note == f"discovery of {HOSTILE}: {in_words(found.reading.to_json())}" and "of 6 pairs left out: " in note
    assert document(build_page(tiny_run()), "manifest")["notes"] == [*notes_of(tiny_run())]
