"""A repair in a terminal, as figures and on the page: they hold the recorded numbers, and say first what else moved."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.browser import browser, opened, scroll_through
from helpers.figures import traces_of
from helpers.page_runs import document, random_run
from helpers.repairs import OBJECTIVES, PROTECTED, made_up_repair, real_repair
from rich.console import Console

from tl_reward import plots
from tl_reward.errors import InputError
from tl_reward.repairing.result import Repair
from tl_reward.results.record_edits import record_repair
from tl_reward.results.sections import RepairEntry
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.page import build_page, write_page
from tl_reward.show.run_tables import summary

TESTED = (*OBJECTIVES, *PROTECTED)


def run_of(found: Repair) -> Results:
    results = Results()
    record_repair(results, "mixed", found)
    return results


@pytest.fixture(scope="module")
def results() -> Results:
    return run_of(made_up_repair())


@pytest.fixture(scope="module")
def entry(results: Results) -> RepairEntry:
    return results.entry("repair", "mixed")


def said_of(results: Results, width: int = 150) -> str:
    console = Console(file=io.StringIO(), width=width)
    summary(results, console)
    file: Any = console.file
    return file.getvalue()


# In a terminal


def test_the_table_leads_with_what_else_moved(results: Results):
    said = said_of(results)
    title, first, *_ = said.splitlines()
    assert title.strip() == "Repair: mixed"
    assert first.startswith(
        '1 of 8 figures of bias is reversed: "reward and length" on helpful (+0.22 → -0.16). 2 of 8 figures of bias are worse'
    )
    assert 'Also worse: "chosen is longer" on helpful (0.85 → 0.79)' in " ".join(said.split())
    assert said.index("What else moved") < said.index("helpful (objective)") < said.index("27 candidates were tried")


def test_the_table_holds_the_evidence_and_how_it_was_chosen(results: Results, entry: RepairEntry):
    said = said_of(results, width=200)
    flat = " ".join(said.split())
    tables: dict[tuple[str, str], list[str]] = {}
    title = ""
    for line in said.splitlines():
        if "): mixed" in line:
            title = line.strip().removesuffix(": mixed")
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) > 2:
            tables.setdefault((title, cells[1]), cells)
    for row in entry["evidence"]:
        values = [row["accuracy"][when]["value"] for when in ("before", "after", "difference")]
        assert all(value is not None for value in values)
        if row["kind"] == "repaired":
            cells = tables[f"{row['tested']} ({'protected' if row['protected'] else 'objective'})", "the repair"]
            assert cells[2] == f"{values[0]:.3f} → {values[1]:.3f}"
            assert cells[3].startswith(f"{values[2]:+.3f} [") and cells[4] == row["verdict"]
            assert cells[5].startswith(f"{row['margin']['difference']['value']:+.2f} [")
            assert f"{row['tested']} {values[2]:+.3f} [" in flat  # in the line above all tables
    assert flat.count("random, draws: 3") == len(TESTED) and "-0.004 to +0.004" in flat
    assert flat.count("│ model helpful alone") == len(TESTED) == flat.count("│ uniform, to 0.9, 96 neurons")
    assert "The rule: all candidates are tried on some of the tune pairs, and those that gain most accuracy" in flat
    assert "Tolerated: 0.01. Chosen: hurting all, to 0.5, 4 neurons, which is 4 of 96 neurons (4.2 %), each multiplied by 0.5." in flat
    assert "The test knows differences of accuracy to ±0.030 on helpful (60 prompts)" in flat
    assert "test: helpful 80 (60), harmless 80 (60); protect: safety 90 (60)" in flat


def test_no_edit_is_said_plainly_with_the_power_of_the_test():
    said = " ".join(said_of(run_of(made_up_repair(edited=False))).split())
    assert "Nothing is edited, so nothing else moved." in said and "What else moved:" not in said and "the repair │" not in said
    assert "No candidate improved the tune pairs on average without a loss of more than 0.01 on an objective." in said
    assert "The test knows accuracy to ±0.060 on helpful (60 prompts)" in said and "could hardly have seen a smaller gain" in said


def test_where_no_bias_got_worse_that_is_said():
    found = made_up_repair()
    calm = run_of(replace(found, shifts={"chat": found.shifts["chat"]}))
    assert "Of 2 figures of bias, none was reversed or clearly got worse." in said_of(calm)
    none = run_of(replace(found, shifts={}))
    assert "Whether a bias moved is not known: none was measured." in said_of(none)
    assert len(document(build_page(none), "panels")) == 2  # evidence and path


# Figures


def test_evidence_shows_each_difference_once_beside_its_controls(results: Results, entry: RepairEntry):
    figure = plots.repair_evidence(results, "mixed")
    drawn = [
        (trace.name, text, x, high, low)
        for trace in traces_of(figure)
        for text, x, high, low in zip(trace.text, trace.x, trace.error_x.array, trace.error_x.arrayminus, strict=True)
    ]
    assert len(drawn) == len(entry["evidence"])
    for row in entry["evidence"]:
        value = row["accuracy"]["difference"]
        same = [
            each for each in drawn if each[0] == row["verdict"] and each[1].startswith(f"{row['name']}<br>") and each[2] == value["value"]
        ]
        middle, low, high = (value.get(key) for key in ("value", "low", "high"))
        assert same and middle is not None and low is not None and high is not None
        assert same[0][3:] == pytest.approx((high - middle, middle - low))
    axes = {trace.xaxis for trace in traces_of(figure)}
    assert len(axes) == len(TESTED)
    titles = [each["text"] for each in figure.to_plotly_json()["layout"]["annotations"]]
    assert [title.split(" (")[0] for title in titles] == list(TESTED) and "0.700 → 0.752, 60 prompts" in titles[0]
    rows = figure.to_plotly_json()["layout"]["yaxis"]["ticktext"]
    assert [*rows] == [
        "the repair",
        "random neurons instead",
        "all neurons alike",
        "model helpful alone",
        "model trained on the same pairs",
    ]


def test_shifts_run_from_before_to_after_with_their_verdicts(results: Results, entry: RepairEntry):
    figure = plots.repair_shifts(results, "mixed")
    before = [
        (text.split("<br>")[0], x)
        for trace in traces_of(figure)
        if trace.name == "before"
        for text, x in zip(trace.text, trace.x, strict=True)
    ]
    after: dict[str, list[tuple[str, float]]] = {}
    for trace in traces_of(figure):
        if trace.name and trace.name.startswith("after: "):
            after.setdefault(trace.name.removeprefix("after: "), []).extend(
                (text.split("<br>")[0], x) for text, x in zip(trace.text, trace.x, strict=True)
            )
    every = [shift for shifts in entry["shifts"].values() for shift in shifts]
    assert len(before) == sum(map(len, after.values())) == len(every)
    for shift in every:
        if shift["good"] != "neither":
            assert (shift["name"], shift["before"]["value"]) in before
            assert (shift["name"], shift["after"]["value"]) in after[shift["verdict"]]
    written = [text for trace in traces_of(figure) if trace.mode == "text" for text in trace.text]
    assert "0.1 → 0.4" in written and "180 → 155" in written
    groups = [each["text"] for each in figure.to_plotly_json()["layout"]["annotations"]]
    assert groups == [*TESTED, "best near 0", "best high", "neither way better"]
    one = plots.repair_shifts(results, "mixed", ["chat"])
    assert {text.split("<br>")[0] for trace in traces_of(one) if trace.name == "before" for text in trace.text} == {
        shift["name"] for shift in entry["shifts"]["chat"]
    }
    with pytest.raises(InputError, match="the repair was not tested on 'nobody'; it was on helpful, harmless"):
        plots.repair_shifts(results, "mixed", ["nobody"])
    with pytest.raises(InputError, match="no figure of what else moved was measured"):
        plots.repair_shifts(run_of(replace(made_up_repair(), shifts={})), "mixed")


def test_what_has_no_good_way_is_on_a_scale_of_its_own(results: Results):
    figure = plots.repair_shifts(results, "mixed", ["harmless"])
    marks = [trace for trace in traces_of(figure) if trace.name == "after: moved"]
    high = [x + size for trace in marks for x, size in zip(trace.x, trace.error_x.array, strict=True)]
    before = [x for trace in traces_of(figure) if trace.name == "before" and trace.xaxis == marks[0].xaxis for x in trace.x]
    assert max(*high, *before) == pytest.approx(1)


def test_the_path_marks_the_chosen_candidate_and_those_that_lose_too_much(results: Results, entry: RepairEntry):
    *series, ring = traces_of(plots.repair_path(results, "mixed"))
    assert ring.name == "chosen: hurting all, to 0.5, 4 neurons"
    (chosen,) = [each for each in entry["tried"] if each["chosen"]]
    gains = {each["name"]: sum(found["difference"]["value"] or 0 for found in each["accuracy"].values()) / 2 for each in entry["tried"]}
    assert list(ring.x) == [4] == [chosen["neurons"]] and list(ring.y) == pytest.approx([gains[chosen["name"]]])
    drawn = {
        text.split("<br>")[0]: (x, y, symbol, size)
        for trace in series
        for text, x, y, symbol, size in zip(trace.text, trace.x, trace.y, trace.marker.symbol, trace.marker.size, strict=True)
    }
    assert drawn.keys() == gains.keys()
    for each in entry["tried"]:
        x, y, symbol, size = drawn[each["name"]]
        worst = min(found["difference"]["value"] or 0 for found in each["accuracy"].values())
        assert x == each["neurons"] and y == pytest.approx(gains[each["name"]]) and (symbol == "x") == (worst < -0.01)
        assert (size == 10) == (each["accuracy"]["helpful"]["difference"]["n"] == 60)
    assert [trace.name for trace in series][:3] == ["hurting all: to 0", "hurting all: to 0.5", "hurting on balance: to 0"]
    assert series[-1].name == "all neurons alike (no candidate)" and series[-1].mode == "markers"


# On the page


def test_the_page_asks_the_question_and_answers_it_in_two_lines(results: Results):
    page = build_page(results)
    panels = document(page, "manifest")["panels"]
    assert [panel["title"] for panel in panels] == [
        "Can few edits serve both objectives better? mixed",
        "What else did the repair move? mixed, helpful, harmless, safety",
        "What else did the repair move? mixed, chat",
        "How was the edit chosen? mixed",
    ]
    assert all(len(panel["caption"]) <= 160 for panel in panels)
    assert panels[0]["caption"].startswith(
        "Of 8 figures of bias, 1 is reversed and 2 are worse. Clearly more accurate on helpful; clearly less"
    )
    notes = " ".join(panels[0]["notes"])
    assert (
        "4 of 96 neurons (4.2 %), each multiplied by 0.5" in notes and "27 candidates were tried" in notes and "±0.030 on helpful" in notes
    )
    assert panels[0]["neurons"] == {"model": "mixed", "set": "repair:0", "label": "Show the 4 edited neurons in the table"}
    assert [panel["height"] for panel in panels] == [each["layout"]["height"] for each in document(page, "panels")]


def test_a_page_of_no_edit_says_so_and_what_the_test_could_have_seen():
    run = run_of(made_up_repair(edited=False))
    evidence, path = document(build_page(run), "manifest")["panels"]
    assert evidence["caption"] == (
        "No neuron is edited: no candidate passed on the tune pairs. The test knows accuracy to ±0.060 on helpful, ±0.060 on harmless."
    )
    assert "neurons" not in evidence and path["title"] == "How was the edit chosen? mixed" and columns_of(run) == []
    assert plots.repair_evidence(run, "mixed").to_plotly_json()["layout"]["yaxis"]["ticktext"][0] == "no edit"


def test_gates_are_a_column_and_the_edited_neurons_a_set(results: Results, entry: RepairEntry):
    (column,) = columns_of(results)
    assert (column.model, column.key, column.neutral) == ("mixed", "gate of the repair", 1.0)
    np.testing.assert_array_equal(column.values, made_up_repair().gates)
    (repair,) = document(build_page(results), "manifest")["repairs"]
    assert repair == {"model": "mixed", "width": 48, "neurons": [3, 10, 17, 24], "gates": [0.5] * 4}
    assert [48 * layer + neuron for layer, neuron in entry["neurons"]] == repair["neurons"]


def test_a_repair_that_was_really_made_is_shown():
    run = run_of(real_repair())
    panels = document(build_page(run), "manifest")["panels"]
    assert len(panels) == (3 if real_repair().chosen else 2)
    said = " ".join(said_of(run).split())
    for row in run.entry("repair", "mixed")["evidence"]:
        if row["kind"] == "repaired":
            assert f"{row['accuracy']['before']['value']:.3f} → {row['accuracy']['after']['value']:.3f}" in said


def test_names_of_data_sets_are_text():
    evil = "<img src=x onerror=alert(1)>%{y}$x$"
    run = run_of(made_up_repair(objectives=(evil, "harmless"), protected=("__proto__", "x" * 3000)))
    page = build_page(run)
    figures, panels = document(page, "panels"), document(page, "manifest")["panels"]
    assert "<img" not in str(figures) and "%{y}$" not in str(figures) and "&lt;img" in str(figures)
    assert all(len(panel["title"]) < 300 and len(panel["caption"]) < 300 for panel in panels)
    assert evil in said_of(run, width=2000)


@pytest.mark.browser
def test_the_edited_neurons_are_a_click_away(tmp_path):
    run = random_run(2, 48)
    record_repair(run, "mixed", made_up_repair())
    with browser() as chromium, opened(chromium, write_page(run, tmp_path / "page.html").as_uri()) as page:
        scroll_through(page)
        assert all(box.locator(".main-svg").count() for box in page.locator("#overview section .plot").all() if box.is_visible())
        told = page.locator("details", has_text="27 candidates were tried").first
        told.locator("summary").click()
        assert "27 candidates were tried" in told.inner_text()
        page.click("button.show-set")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('4 of 96')")
        links = page.locator("#table tbody a")
        assert sorted(links.all_inner_texts()) == ["0.10", "0.17", "0.24", "0.3"]
        head = page.locator("#table thead th").all_inner_texts()
        assert any("gate of the repair" in each for each in head)
        page.click("#table tbody a >> text=0.17")
        page.wait_for_selector('#neuron[data-shown="0.17"]')
        assert "multiplies this neuron by 0.5" in page.inner_text(".repaired")
        assert "gate of the repair" in page.inner_text("#neuron-numbers")
        page.click(".repaired a")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('4 of 96')")
        page.wait_for_function("() => document.getElementById('section-table').getBoundingClientRect().top < innerHeight")
        page.evaluate("location.hash = '#L0N18?rm=mixed'")
        page.wait_for_selector('#neuron[data-shown="0.18"]')
        assert page.locator(".repaired").count() == 0
