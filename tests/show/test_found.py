"""What the page says first: what the models are, where to click, and what was found, with links that lead to it."""

import copy
from typing import Any

import pytest
from helpers.browser import browser, opened
from helpers.found import est
from helpers.page_runs import NAMES, document, tiny_run

from tl_reward.results.findings.every import findings_of
from tl_reward.results.store import Results
from tl_reward.show.page import build_page, write_page
from tl_reward.show.page.found import guide, models_of
from tl_reward.show.page.panels import panels_of

SHAPES: list[dict[str, Any]] = [{"name": "helpful", "layers": 30, "width": 1536}]
MARKUP = "<b>pairs</b><img src=x onerror='window.hacked = 1'>"


def found_run() -> Results:
    """The tiny run with clear figures: a finding of each kind of place on the page."""
    run: Any = copy.deepcopy(tiny_run().sections)
    run["scores"]["mixed · some pairs"] |= {"accuracy": est(0.9), "dataset": MARKUP}
    run["tension"]["mixed · some pairs"]["conflict_clear"] = {
        "neurons": 60,
        "share": 0.7,
        "chance": 0.5,
        "low": 0.4,
        "high": 0.6,
        "p_value": 0.001,
    }
    run["discovery"]["mixed"]["contrast"]["mlp_gate"] |= {"chosen": 40, "rejected": 40, "discoveries": 7}
    (overlap,) = run["overlap"].values()
    overlap["top"] = dict.fromkeys(overlap["top"], [[0, i] for i in range(5)] + [[1, i] for i in range(7)])
    for pair in overlap["pairs"]:
        pair["shared"] = 12
    return Results(run, tiny_run().tensors, tiny_run().provenance)


def test_every_sentence_is_on_the_page_with_its_rule_and_a_place_for_each_link():
    run = found_run()
    shown = document(build_page(run), "manifest")["found"]["findings"]
    findings = findings_of(run.sections)
    assert [(each["sentence"], each["rule"]) for each in shown] == [(each.sentence, each.rule) for each in findings]
    assert [len(each["links"]) for each in shown] == [len(each.links) for each in findings]
    kinds = {kind for each in shown for link in each["links"] for kind in ("panel", "place", "set", "metric", "neuron") if kind in link}
    assert kinds == {"panel", "place", "set", "metric", "neuron"}


def test_a_page_without_a_finding_says_so_and_one_of_edits_alone_leads_to_its_panel():
    (found,) = document(build_page(Results({"scores": tiny_run().section("scores")}, tiny_run().tensors)), "manifest")["found"]["findings"]
    assert found["sentence"] == "No finding: nothing in this run meets a rule of findings." and found["links"] == []


def test_a_link_leads_to_the_panel_of_its_own_entry():
    run = found_run()
    ((name, entry),) = run.section("overlap").items()
    two = Results({**run.sections, "overlap": {name: entry, "later": entry}}, run.tensors, run.provenance)
    shown = [panel.entries for panel in panels_of(two) if panel.section == "overlap"]
    assert shown == [(name,), (name,), ("later",), ("later",)]


def test_shared_neurons_of_a_run_without_a_table_lead_to_their_plot():
    run = found_run()
    alone = Results({"overlap": run.section("overlap")}, provenance=run.provenance)
    (found,) = document(build_page(alone), "manifest")["found"]["findings"]
    assert [link["place"] for link in found["links"]] == ["overlap-0", "overlap-0"]
    assert not any("set" in link for link in found["links"])


def test_the_embedded_models_are_described_and_where_to_click():
    models = {name: {"path": f"/somebody/tl_reward/model/adapters/{name}"} for name in NAMES}
    how = "SmolLM2-135M-Instruct, trained (LoRA) with 1,300 pairs of the RMB benchmark"
    assert sorted(models_of(Results(provenance={"models": models}), [SHAPES[0] | {"name": name} for name in NAMES])) == [
        f"harmless: {how} to prefer the safer of two answers",
        f"helpful: {how} to prefer the more helpful of two answers",
        f"mixed: {how} on pairs of both kinds",
    ]
    assert guide(SHAPES, mapped=True).startswith(
        'Click a cell of the map below, or type a neuron (12.345: layer 12, neuron 345) into "Neuron" at the top'
    )
    assert guide(SHAPES, mapped=False).startswith("Type a neuron (12.345")  # effects of single neurons make no map
    assert not guide([], mapped=False).startswith(("Click", "Type"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("owner/armo", "owner/armo (llama, 2 layers of 48 neurons)"),
        ("/home/me/models/x", "x (llama, 2 layers of 48 neurons)"),
        (None, "a model made in memory (llama, 2 layers of 48 neurons)"),
    ],
)
def test_other_models_are_called_by_their_short_names(path: str | None, said: str):
    told = {"path": path, "architecture": "llama", "layers": 2, "d_mlp": 48}
    small = [{"name": "helpful", "layers": 2, "width": 48}]
    assert models_of(Results(provenance={"models": {"helpful": told}}), small) == [f"helpful: {said}"]
    assert "(1.47: layer 1, neuron 47)" in guide(small, mapped=True)
    assert models_of(Results(), []) == []  # nothing is known
    many = {f"m{i}": told for i in range(9)}
    assert models_of(Results(provenance={"models": many}), [{"name": name} for name in many])[-1] == "and 3 more"


@pytest.mark.browser
def test_links_lead_to_what_a_sentence_rests_on(tmp_path):
    run = found_run()
    address = write_page(run, tmp_path / "page.html").as_uri()
    with browser() as chromium, opened(chromium, address) as page:
        first = page.locator("#overview > section").first
        assert first.locator("h2").inner_text() == "What was found" and first.get_attribute("id") == "section-findings"
        assert first.locator("li > p").all_inner_texts() == [each.sentence for each in findings_of(run.sections)]
        assert MARKUP in first.inner_text() and page.evaluate("window.hacked") is None
        rule = first.locator("details").first
        rule.locator("summary").press("Enter")
        assert "Looked at" in rule.locator("p").inner_text() and rule.locator("p").is_visible()

        def follow(label: str, section: str) -> None:
            """By keyboard; the section's heading is then in view."""
            page.evaluate("window.scrollTo(0, 0)")
            first.get_by_role("button", name=label).first.press("Enter")
            head = page.locator("section", has=page.locator("h2", has_text=section)).locator("h2").locator("visible=true").first
            page.wait_for_function("head => Math.abs(head.getBoundingClientRect().top) < innerHeight", arg=head.element_handle())

        follow("accuracies", "Does each reward model prefer the chosen response?")
        assert page.evaluate("window.scrollY") > 900
        follow("mixed: both margins", "Does a neuron serve both objectives?")
        assert page.input_value("#model") == "mixed" and page.input_value("#metric").startswith("effect on h")
        follow("mixed: map", "Every neuron")
        assert page.input_value("#metric") == "AUROC of mlp_gate"
        follow("12 that all 3 share", "Table of neurons")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('12 of 96 neurons')")
        neuron = first.get_by_role("link").first
        name = neuron.inner_text().removeprefix("neuron ")
        page.evaluate("window.scrollTo(0, 0)")
        neuron.press("Enter")
        page.wait_for_selector(f'#neuron[data-shown="{name}"]')
