"""Users' own interventions: functions, names on the command line, edits of everything a model is asked, and mistakes in them."""

import textwrap
import warnings
from typing import Any, cast

import pytest
import torch
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.direct_attribution import direct_attribution
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.analyses.reward_lens import reward_lens
from tl_reward.cli import main
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import MeanAblation, ScaleAblation, ZeroAblation
from tl_reward.interventions.from_functions import intervention, load_interventions
from tl_reward.interventions.patches import HeadPatch, Patch, Source
from tl_reward.interventions.protocol import Intervention
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)
NEURONS = NeuronSet([(0, 3), (0, 20), (1, 7), (1, 30)])


@intervention(Site(1, "mlp_post"), per_token=True)
def halve(activation):
    return activation / 2


ALL_OF_LAYER_1 = NeuronSet((1, neuron) for neuron in range(48))


def test_a_function_is_an_intervention(tiny):
    halved = halve(torch.ones(2))
    assert isinstance(halve, Intervention) and halved is not None and halved.tolist() == [0.5, 0.5]
    expected = score(tiny, PAIRS, interventions=[ScaleAblation(ALL_OF_LAYER_1, 0.5)])
    assert score(tiny, PAIRS, interventions=[halve]).chosen == pytest.approx(expected.chosen, abs=1e-5)
    names = []

    @intervention("blocks.0.hook_mlp_out", Site(1, "mlp_out"))
    def look(activation, hook):
        names.append((hook.name, len(activation)))

    clean = score(tiny, PAIRS)
    assert score(tiny, PAIRS, interventions=[look]).chosen == pytest.approx(clean.chosen, abs=1e-5)
    assert {name for name, _ in names} == {"blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"}
    assert sum(rows for name, rows in names if name.startswith("blocks.0")) == 2 * len(PAIRS)  # not per token: one transcript a row


def test_whatever_is_asked_is_asked_of_the_edited_model(tiny):
    zero = ZeroAblation(NEURONS)
    found = discover(tiny, PAIRS, interventions=[zero])
    mean = found.ranking("abs_mean", "mlp_post")
    assert all(mean[place] == 0 for place in NEURONS) and (mean != 0).sum() == 96 - len(NEURONS)
    # Weights that write nothing are the same edit, so every figure must agree with those of such a model.
    pruned = tiny_reward_model()
    for layer, neuron in NEURONS:
        pruned.blocks[layer].mlp.W_out.data[neuron] = 0
    torch.testing.assert_close(
        found.ranking("mean", "mlp_gate")[1], discover(pruned, PAIRS).ranking("mean", "mlp_gate")[1], atol=1e-5, rtol=1e-4
    )
    under, expected = attribute(tiny, PAIRS, interventions=[zero]).effect, attribute(pruned, PAIRS).effect
    torch.testing.assert_close(under, expected, atol=1e-5, rtol=1e-3)
    path = attribute(tiny, PAIRS, steps=2, interventions=[zero]).effect
    torch.testing.assert_close(path, attribute(pruned, PAIRS, steps=2).effect, atol=1e-5, rtol=1e-3)
    others = NeuronSet([(0, 5), (1, 9)])
    one, two = (neuron_effects(m, PAIRS, others, interventions=e).margin for m, e in ((tiny, [zero]), (pruned, [])))
    assert one == pytest.approx(two, abs=1e-5)
    assert reward_lens(tiny, PAIRS, interventions=[zero]).margins() == pytest.approx(reward_lens(pruned, PAIRS).margins(), abs=1e-4)
    clean, ablated = sweep(tiny, PAIRS, [(), [ZeroAblation(others)]], interventions=[zero])
    assert clean.chosen == pytest.approx(score(pruned, PAIRS).chosen, abs=1e-5)
    assert ablated.chosen == pytest.approx(score(tiny, PAIRS, interventions=[zero, ZeroAblation(others)]).chosen, abs=1e-5)
    assert attribute(tiny, PAIRS).effect[0, 3] != 0  # and is gone afterwards


def broken(activation):
    nothing = activation.shape[0] - len(activation)
    return activation * (1 / nothing)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (broken, r"blocks\.1\.hook_mlp_out: ZeroDivisionError at test_from_functions\.py:\d+: "),
        (lambda a: a[:, 1:], r"at test_from_functions\.py:\d+ must return None or a tensor \[\d+, \d+, 32\] of \S+, got \[\d+, \d+, 32"),
        (lambda a: 3, r"must return None or a tensor .*, got int"),
        (lambda a: a.long(), r"got .* of torch.int64"),
        (lambda a: a @ torch.ones(7, 7), r"RuntimeError at test_from_functions\.py:\d+: mat1 and mat2"),
    ],
    ids=["exception", "shape", "type", "whole numbers", "matmul"],
)  # fmt: skip
@pytest.mark.parametrize("per_token", [True, False])
def test_a_mistake_is_said_with_site_and_line_and_no_hook_stays(tiny, function, says, per_token):
    edit = intervention(Site(1, "mlp_out"), per_token=per_token)(function)
    for run in (
        lambda: score(tiny, PAIRS, interventions=[edit]),
        lambda: sweep(tiny, PAIRS, [(), [ZeroAblation(NEURONS)]], interventions=[edit]),
        lambda: attribute(tiny, PAIRS, interventions=[edit]),
        lambda: discover(tiny, PAIRS, interventions=[edit]),
    ):
        with pytest.raises(InputError, match=says) as caught:
            run()
        assert "\n" not in str(caught.value).split(": ", 2)[0] and not any(point._forward_hooks for point in tiny.hook_points())


def test_wrong_places_are_named(tiny):
    edit = intervention("blocks.1.hook_mlp_outt", per_token=True)(lambda a: a)
    with pytest.raises(InputError, match=r"no hook point 'blocks.1.hook_mlp_outt' in .*nearest: blocks.1.hook_mlp_out"):
        score(tiny, PAIRS, interventions=[edit])
    with pytest.raises(InputError, match="needs a place"):
        intervention()
    with pytest.raises(InputError, match=r"got function \(forgot the brackets\?\)"):
        intervention(lambda a: a)


def test_precision_is_the_activations_own(tiny):
    half = tiny_reward_model().to(torch.bfloat16)
    edit = intervention(Site(1, "mlp_out"), per_token=True)(lambda a: a.float() * 0.5)
    assert abs(score(half, PAIRS, interventions=[edit]).chosen - score(tiny, PAIRS, interventions=[edit]).chosen).max() < 0.2


def test_edits_past_the_last_layer_are_for_scores(tiny):
    head = HeadPatch(tiny_reward_model(seed=1))
    assert abs(score(tiny, PAIRS, interventions=[head]).chosen - score(tiny, PAIRS).chosen).max() > 1e-3
    for run in (reward_lens, direct_attribution):
        with pytest.raises(InputError, match=r"an edit at unembed\.hook_in, past the last layer, is for scores"):
            run(tiny, PAIRS, interventions=[head])


def test_neurons_that_an_edit_holds_constant_still_have_a_gradient(tiny):
    mean = discover(tiny, PAIRS).ranking("mean", "mlp_post")
    clamp = intervention(Site(1, "mlp_post"), per_token=True)(lambda a: mean[1].expand_as(a))
    found = attribute(tiny, PAIRS, interventions=[clamp]).effect
    every = NeuronSet((1, neuron) for neuron in range(48))
    same = attribute(tiny, PAIRS, interventions=[MeanAblation(every, mean)]).effect
    torch.testing.assert_close(found[1], same[1], atol=1e-5, rtol=1e-4)
    assert found[1].abs().max() > 1e-4


def test_an_edit_of_the_read_out_token_alone(tiny):
    last = Site(1, "resid_post")
    for per_token in (True, False):
        edit = intervention(last, where="readout", per_token=per_token)(torch.zeros_like)
        found = score(tiny, PAIRS, interventions=[edit])
        assert found.chosen == pytest.approx(0, abs=1e-6) and found.rejected == pytest.approx(0, abs=1e-6)
    lens = reward_lens(tiny, PAIRS, interventions=[intervention(last, where="response", per_token=True)(torch.zeros_like)])
    encoded = encode_for(tiny, PAIRS)
    for curve, row in zip(lens.curves, encoded.chosen, strict=True):
        start = encoded.rows[row].response_start
        assert curve.chosen[start:].abs().max() < 1e-6 < curve.chosen[:start].abs().min()
    with pytest.raises(InputError, match="where must be one of readout, response, all, got 'last'"):
        intervention(last, where=cast(Any, "last"))


def test_a_source_forgets_a_place_that_it_does_not_have(tiny):
    source = Source(tiny)
    for wrong in ("blocks.1.hook_rsid_post", Site(7, "resid_post")):
        with pytest.raises(InputError, match=r"no hook point .*nearest: blocks"):
            Patch(source, [wrong])
    patched = score(tiny, PAIRS, interventions=[Patch(source, [Site(1, "resid_post")])])
    assert patched.chosen == pytest.approx(score(tiny, PAIRS).chosen, abs=1e-5)


class Raises:
    def hooks(self, batch):
        return [("blocks.0.hook_mlp_out", None), *{}[1]]


class WrongNames:
    def hooks(self, batch):
        return [(Site(0, "mlp_out"), lambda a, hook: a)]


class NoList:
    def hooks(self, batch):
        return {"blocks.0.hook_mlp_out": lambda a, hook: a}


@pytest.mark.parametrize(
    ("interventions", "says"),
    [
        ([Raises()], r"Raises.hooks: KeyError at test_from_functions.py:\d+: 1"),
        ([WrongNames()], r"must give pairs of a hook point's name and a function, got \(Site"),
        ([NoList()], "must give a list of pairs, of a hook point's name and a function, got dict"),
        ([intervention(Site(0, "mlp_out"))(lambda a, pos: a)], r"blocks.0.hook_mlp_out: TypeError at test_from_functions.py:\d+: .*pos"),
        ([lambda a: a], r"must have hooks\(batch\), got function; make one of a function with @tl_reward.intervention"),
        (ZeroAblation(NEURONS), "interventions must be a list, got ZeroAblation by itself"),
    ],
    ids=["raises", "names", "dict", "arguments", "function", "no list"],
)
def test_what_is_no_intervention_is_said(tiny, interventions, says):
    with pytest.raises(InputError, match=says):
        score(tiny, PAIRS, interventions=interventions)


def test_a_builtin_can_be_an_edit(tiny):
    assert score(tiny, PAIRS, interventions=[intervention(Site(1, "mlp_post"), per_token=True)(torch.relu)]).chosen.shape == (4,)


EDITS = '''
    import tl_reward
    from tl_reward import Site, NeuronSet

    @tl_reward.intervention(Site(1, "mlp_post"), per_token=True)
    def halve(activation):
        return activation / 2

    def zero():
        return tl_reward.ZeroAblation(NeuronSet([(0, 3)]))

    def needs(x):
        return x

    number = 3
'''  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny_hf_model().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "my_edits.py").write_text(textwrap.dedent(EDITS))
    (tmp_path / "broken_edits.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for name in ("my_edits", "broken_edits"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return tmp_path


def test_by_name_from_the_command_line(folder, tiny, capsys):
    options = ["--device", "cpu", "--limit", "4", "--split", "find"]
    given = ["--intervention", "my_edits:halve", "my_edits:zero"]
    assert main(["score", "model", *options, *given, "--out", "run"]) == 0
    (entry,) = Results.load("run").section("scores")
    assert entry.startswith("model + halve + zero · ")  # not called as the model without edits
    pairs = load_pairs("embedded", split="find", limit=4)
    expected = score(tiny, pairs, interventions=[halve, ZeroAblation(NeuronSet([(0, 3)]))])
    assert Results.load("run").tensor("scores", entry, "chosen").tolist() == pytest.approx(list(expected.chosen), abs=1e-4)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("halve", "an intervention is named module:name, such as edits:halve for halve in edits.py; got 'halve'"),
        ("./my_edits.py:halve", "an intervention is named module:name"),
        ("my_edits.py:halve", "an intervention is named module:name"),
        ("my_edits:", "module:name"),
        ("missing_edits:halve", "No module named 'missing_edits'; modules are looked for in"),
        ("broken_edits:x", "ZeroDivisionError at broken_edits.py:2: division by zero"),
        ("my_edits:double", "my_edits has no 'double'; its interventions: halve"),
        ("my_edits:number", "my_edits:number must be an intervention, with hooks(batch), or give one when called; got int"),
        ("my_edits:needs", "is no intervention, and gives none when called without arguments"),
    ],
)
def test_names_that_are_none(folder, name, says, capsys):
    with pytest.raises(InputError) as caught:
        load_interventions([name])
    assert says in str(caught.value)
    with pytest.raises(SystemExit):
        main(["score", "model", "--device", "cpu", "--limit", "2", "--intervention", name, "--out", "run"])
    assert says[:20] in capsys.readouterr().err


class Silent:
    """Hooks of a class, made anew for every batch; the function forgets its return."""

    def hooks(self, batch):
        def forgetful(activation, hook):
            _ = activation * 0

        return [(Site(0, "mlp_out").hook_name, forgetful)]


def forgetful(activation):
    _ = activation * 0


def in_place(activation):
    activation.data[:] = 0


def at_one_place(activation, hook):
    return activation * 0 if hook.name.startswith("blocks.1") else None


def looks_on(activation):
    return activation


@pytest.mark.parametrize("per_token", [True, False])
def test_an_edit_that_edits_nothing_is_warned_of_once(tiny, per_token):
    places = Site(0, "mlp_out"), Site(1, "mlp_out")
    for edit in (intervention(*places, per_token=per_token)(forgetful), Silent()):
        for run in (score, discover, attribute):
            with pytest.warns(UserWarning, match=r"forgetful \(test_from_functions.py:\d+\) edited nothing: it returned None") as warned:
                run(tiny, PAIRS, interventions=cast(Any, [edit]))
            assert len([each for each in warned if "edited nothing" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for function in (in_place, at_one_place, looks_on):
            score(tiny, PAIRS, interventions=[intervention(*places, per_token=per_token)(function)])


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a - a.mean(1, keepdim=True),
        lambda a: a.mean(0, keepdim=True).expand_as(a),
        lambda a: a * (torch.arange(a.shape[1]) < 20)[None, :, None],
    ],
)
def test_a_promise_of_each_token_that_is_none_is_refused(edit):
    model = tiny_reward_model()
    wrong = intervention(Site(0, "resid_mid"), per_token=True)(edit)
    for run in (
        lambda: score(model, PAIRS, interventions=[wrong]),
        lambda: sweep(model, PAIRS, [[], [wrong]]),
        lambda: discover(model, PAIRS, interventions=[wrong]),
        lambda: attribute(model, PAIRS, interventions=[wrong]),
    ):
        with pytest.raises(InputError, match=r"^<lambda> \(test_from_functions.py:\d+\) says per_token=True, and what it does to a token"):
            run()
    assert score(model, PAIRS, interventions=[intervention(Site(0, "resid_mid"))(edit)]).chosen.shape == (4,)


@pytest.mark.parametrize("where", ["readout", "response", "all"])
def test_a_promise_that_is_kept_is_tried_once_for_a_model(where):
    model, calls = tiny_reward_model(), []
    edit = intervention(Site(1, "mlp_post"), where=where, per_token=True)(lambda a: calls.append(a.shape) or a / 2)
    score(model, PAIRS, interventions=[edit])
    first = len(calls)
    score(model, PAIRS, interventions=[edit])
    assert 0 < len(calls) - first == first - 2
