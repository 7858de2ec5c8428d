"""Figures and panels of patching and of the lens: they draw the recorded numbers, and tokens stay text."""

import re
from pathlib import Path

import pytest
from helpers.figures import traces_of
from helpers.page_runs import document
from helpers.short_pairs import embedded_pairs

from tl_reward import plots
from tl_reward.analyses.model_patching import compare_gain_with_exact, gain, patch_models
from tl_reward.analyses.pair_patching import aligned_tokens, patch_pairs
from tl_reward.analyses.reward_lens import reward_lens
from tl_reward.cli import main
from tl_reward.data.pairs import PreferencePair, parse_transcript
from tl_reward.errors import InputError
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.results.found_on import found_on
from tl_reward.results.record_patching import record_gain, record_lens, record_model_patching, record_patching
from tl_reward.results.store import Results
from tl_reward.show.page import build_page
from tl_reward.show.plots.patching import as_label

PAIRS = embedded_pairs("test", 4)
HOSTILE = PreferencePair(
    "hostile",
    parse_transcript("\n\nHuman: Hi\n\nAssistant: <script>a</script>\u2028<br>&\n"),
    parse_transcript("\n\nHuman: Hi\n\nAssistant: <!-- b -->\u202e'\"%%PLOTLY%%\n"),
)


@pytest.fixture(scope="module")
def results():
    results = Results()
    model, other = tiny_reward_model(), tiny_reward_model(seed=1)
    record_patching(results, "mixed", "pairs", patch_pairs(model, PAIRS, kinds=("resid_post", "attn_z"), where=("all", "readout")))
    tokens = aligned_tokens(model, HOSTILE)
    places = range(-len(tokens), 0)
    record_patching(results, "mixed", "pair hostile", patch_pairs(model, [HOSTILE], kinds=("mlp_out",), where=places), tokens=tokens)
    estimate = gain(model, other, PAIRS)
    checked = compare_gain_with_exact(model, other, PAIRS, {"gradient": estimate.effect}, top=4, random=8)
    record_gain(results, "mixed", "helpful", "found", estimate, checked)
    found = patch_models(model, other, PAIRS, estimate.effect, fractions=(0.1, 1.0), draws=2)
    record_model_patching(
        results, "mixed", "helpful", "pairs", found, ranking="estimated gain", site="mlp_post", where="all",
        source=found_on("found", PAIRS[:1]), pairs=PAIRS,
    )  # fmt: skip
    record_lens(results, "mixed", "pairs", reward_lens(model, [*PAIRS, HOSTILE]), model.tokenizer, show=5)
    return results


def test_profiles_and_heads_draw_the_shares(results):
    cells = results.entry("patching", "mixed · pairs")["cells"]
    figure = plots.patch_profile(results, "mixed · pairs")
    lines = [trace for trace in traces_of(figure) if trace.fill != "toself"]
    for line in lines:
        direction = "noising" if line.xaxis == "x" else "denoising"
        kind, where = line.name.removesuffix(" tokens").split(", ")
        own = [cell for cell in cells if (cell["kind"], cell["where"]) == (kind, where)]
        assert list(line.y) == [cell[direction]["value"] for cell in own] and list(line.x) == [0, 1]
    assert len(lines) == 4
    noising, denoising = traces_of(plots.patch_heads(results, "mixed · pairs"))
    for cell in cells:
        if cell["unit"] is not None and cell["where"] == "all":
            assert noising.z[cell["layer"], cell["unit"]] == cell["noising"]["value"]
            assert denoising.z[cell["layer"], cell["unit"]] == cell["denoising"]["value"]


def test_the_token_map_has_a_place_for_each_aligned_token(results):
    entry = results.entry("patching", "mixed · pair hostile")
    noising, _ = traces_of(plots.patch_tokens(results, "mixed · pair hostile"))
    assert noising.z.shape == (2, len(entry["tokens"]))
    for cell in entry["cells"]:
        assert noising.z[cell["layer"], len(entry["tokens"]) + cell["where"]] == cell["noising"]["value"]
    labels = plots.patch_tokens(results, "mixed · pair hostile").to_plotly_json()["layout"]["xaxis2"]["ticktext"]
    assert not any(re.search(r"<(?!br>)", label) for label in labels) and any("&lt;" in label for label in labels)
    assert len(labels) == len(entry["tokens"]) == len(noising.customdata[0])


def test_curves_between_models_start_at_the_clean_one_and_band_only_where_drawn(results):
    (name,) = results.section("model_patching")
    entry = results.entry("model_patching", name)
    assert entry["tested_pairs_that_found"] == 1
    traces = traces_of(plots.model_patching_curves(results, name))
    top = [trace for trace in traces if trace.name == "top neurons patched"]
    assert [trace.y[0] for trace in top] == [0, 1] and list(top[1].y[1:]) == [point["kept"]["value"] for point in entry["points"]]
    band, random, line = traces_of(plots.patched_accuracy(results, "mixed", "helpful"))
    assert random.y[1] == pytest.approx(sum(entry["points"][0]["random_accuracy"]) / 2)
    assert list(line.y) == [e["accuracy"]["value"] for e in (entry["clean"], *(point["ranked"] for point in entry["points"]))]
    assert max(band.x) == 1 and band.fill == "toself" and list(line.x) == [0, 1, 2]
    with pytest.raises(InputError, match="nothing is patched from 'none' into 'mixed'"):
        plots.patched_accuracy(results, "mixed", "none")


def test_lens_curves_and_token_curves(results):
    entry = results.entry("lens", "mixed · pairs")
    lines = [trace for trace in traces_of(plots.lens_curves(results)) if trace.fill != "toself"]
    assert list(lines[0].y) == [value["value"] for value in entry["accuracy"]] and lines[1].y[-1] == 1
    chosen, rejected = traces_of(plots.token_curves(results, "mixed · pairs", "hostile"))
    shown = entry["shown"][-1]
    assert list(chosen.y) == shown["chosen"]["reward"] and len(rejected.text) == len(shown["rejected"]["tokens"])
    assert "".join(shown["chosen"]["tokens"]).endswith("script>a</script>\u2028<br>&\n")  # "<" is shared
    with pytest.raises(InputError, match="shows no pair 'none'; it shows"):
        plots.token_curves(results, "mixed · pairs", "none")
    with pytest.raises(InputError, match="has no heads"):
        plots.patch_heads(results, "mixed · pair hostile")
    with pytest.raises(InputError, match="is not token by token"):
        plots.patch_tokens(results, "mixed · pairs")


def test_a_lens_without_a_tokenizer_is_not_recorded():
    model = tiny_reward_model()
    with pytest.raises(InputError, match="mixed has no tokenizer to write tokens as text"):
        record_lens(Results(), "mixed", "pairs", reward_lens(model, PAIRS[:1]), None)


def test_the_page_shows_them_all_and_hostile_tokens_stay_text(results):
    page = build_page(results)
    panels, figures = document(page, "manifest")["panels"], document(page, "panels")
    assert len(panels) == len(figures) == (1 + 2) + 1 + 2 + 2 + (1 + 5)
    assert any("CAUTION: 1 of 4 tested pairs" in panel["caption"] for panel in panels)
    assert any("attribution patching from helpful" in panel["title"] + " ".join(panel["notes"]) for panel in panels)
    assert "<script>" not in str(figures) and "<!--" not in str(figures)
    assert as_label("<b> x\n") == "<b>·x⏎" and as_label("x" * 20_000) == "x" * 13 + "…"


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed, name in enumerate(("mixed", "helpful")):
        tiny_hf_model(seed=seed).save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
    model, source = str(tmp_path / "mixed"), str(tmp_path / "helpful")
    at = {name: str(tmp_path / "runs" / name) for name in ("patch", "tokens", "models", "lens")}
    options = ["--device", "cpu", "--limit", "3"]
    assert (
        main(["patch", model, *options, "--kinds", "attn_out", "--where", "all", "readout", "--neurons", "0.3", "--out", at["patch"]]) == 0
    )
    assert main(["patch", model, *options, "--kinds", "attn_out", "--tokens", PAIRS[0].id, "--out", at["tokens"]]) == 0
    shares = ["--fractions", "0.1", "1.0", "--draws", "1", "--top", "3", "--random", "4", "--find-limit", "4"]
    assert main(["patch-models", model, source, *options, *shares, "--find-objective", "helpful", "--out", at["models"]]) == 0
    assert main(["lens", model, source, *options, "--show", "1", "--out", at["lens"]]) == 0
    assert main(["dashboard", *at.values(), "--out", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr().out
    assert "Share of the reward gap moved" in printed and "Patched from another model" in printed and "Reward lens" in printed
    (entry,) = Results.load(at["models"]).section("model_patching").values()
    assert (entry["model"], entry["source_model"], entry["tested_pairs_that_found"]) == ("mixed", "helpful", 0)
    for wrong, says in (
        (["patch", model, *options, "--tokens", "nobody", "--out", str(tmp_path / "x")], "no pair has the id 'nobody'"),
        (["patch", model, *options, "--neurons", "7.3", "--out", str(tmp_path / "x")], "layer must be in [0, 2), got 7"),
        (["patch-models", model, source, *options, "--fractions", "2", "--out", str(tmp_path / "x")], "fraction must be in (0, 1]"),
    ):
        with pytest.raises(SystemExit):
            main(wrong)
        assert says in capsys.readouterr().err
