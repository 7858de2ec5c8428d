"""No prompt chooses and tests: every refusal of the splits in its line, and what may stand in the place of pairs."""

from dataclasses import replace
from typing import Any

import datasets
import pandas
import pytest
from helpers.refusals import refusal
from helpers.repair_pairs import pair, plain_pairs

from tl_reward.data.pairs import Message, PreferencePair, data_hash
from tl_reward.repairing.splits import Splits, split_of

Sets = dict[str, dict[str, list[PreferencePair]]]


def sets(prompts: int = 10) -> Sets:
    return {
        split: {name: plain_pairs(f"{split} {name}", prompts) for name in ("helpful", "harmless")} for split in ("find", "tune", "test")
    }


def made(given: Any, **also: Any) -> Splits:
    return split_of(given["find"], given["tune"], given["test"], **also)


def pairs_in(given: Splits) -> dict[str, dict[str, list[str]]]:
    return {
        split: {name: [each.chosen[0].content for each in pairs] for name, pairs in getattr(given, split).items()}
        for split in ("find", "tune", "test")
    }


def test_pairs_by_objective_keep_their_order_and_are_marked():
    given = sets()
    found = made(given, protect={"p": plain_pairs("p", 2)})
    assert found.names == ("helpful", "harmless") == tuple(found.test)
    for split in ("find", "tune", "test"):
        for name, pairs in getattr(found, split).items():
            assert [each.chosen for each in pairs] == [each.chosen for each in given[split][name]]
            assert {each.objective for each in pairs} == {name}
            assert data_hash(pairs) == data_hash(given[split][name])
    assert found.protect["p"] == tuple(plain_pairs("p", 2))


def as_rows(pairs: list[PreferencePair]) -> list[dict[str, Any]]:
    return [
        {"id": each.id, "prompt": each.chosen[0].content, "chosen": each.chosen[1].content, "rejected": each.rejected[1].content}
        for each in pairs
    ]


@pytest.mark.parametrize("kind", [list, pandas.DataFrame, datasets.Dataset.from_list, tuple, lambda rows: iter(rows)])
@pytest.mark.parametrize("named", [True, False])
def test_rows_in_the_place_of_pairs(kind: Any, named: bool):
    """By objective, or rows that name theirs."""
    given = sets()
    expected = pairs_in(made(given))
    if named:
        rows: Any = {split: {name: kind(as_rows(pairs)) for name, pairs in parts.items()} for split, parts in given.items()}
    else:
        rows = {
            split: kind([row | {"objective": name, "id": f"{name} {row['id']}"} for name, pairs in parts.items() for row in as_rows(pairs)])
            for split, parts in given.items()
        }
        expected = {split: {name: parts[name] for name in sorted(parts)} for split, parts in expected.items()}
    assert pairs_in(made(rows)) == expected


def test_ids_that_clash_between_objectives_get_their_names():
    """Pairs of all objectives are run together; groups stay groups, and ids that do not clash stay as they are."""
    given = sets()
    found = made(given)
    assert [each.id for each in found.find["harmless"]][:2] == ["harmless: 0/0", "harmless: 0/1"]
    apart = {
        split: {
            name: [replace(each, id=f"{name}{each.id}", group="row" if name == "helpful" else None) for each in pairs]
            for name, pairs in parts.items()
        }
        for split, parts in given.items()
    }
    assert [each.id for each in made(apart).find["harmless"]][:2] == ["harmless0/0", "harmless0/1"]
    crossed = {
        split: {name: [replace(each, id=f"{name}{each.id}", group=f"row {each.id[0]}") for each in pairs] for name, pairs in parts.items()}
        for split, parts in given.items()
    }
    ids = [(each.id, each.group) for parts in made(crossed).find.values() for each in parts]
    assert ids[0] == ("helpful: helpful0/0", "helpful: row 0") and ids[-1] == ("harmless: harmless9/1", "harmless: row 9")


@pytest.mark.parametrize("objective", ["", " "])
def test_an_objective_without_a_name_is_refused(objective: str):
    """Scores leave pairs of no objective out of what is by objective: such a one would have no say."""
    given = {split: {"helpful": parts["helpful"], objective: parts["harmless"]} for split, parts in sets().items()}
    assert refusal(made, given) == "an objective must have a name, got an empty one"


def test_too_few_objectives_or_others():
    given = sets()
    one = {split: {"helpful": parts["helpful"]} for split, parts in given.items()}
    assert refusal(made, one) == "a repair needs pairs of at least two objectives, got helpful"
    assert refusal(made, {split: {} for split in given}) == "a repair needs pairs of at least two objectives, got none"
    other = given | {"test": {"helpful": given["test"]["helpful"], "honest": given["test"]["harmless"]}}
    assert refusal(made, other) == "find has the objectives helpful, harmless, and test has helpful, honest: they must be the same"
    more = given | {"tune": given["tune"] | {"honest": plain_pairs("honest")}}
    assert refusal(made, more) == "find has the objectives helpful, harmless, and tune has helpful, harmless, honest: they must be the same"
    nameless: Any = given | {"tune": plain_pairs("x", 10)}
    assert refusal(made, nameless).startswith("tune: pair 0/0 names no objective; give pairs by objective, such as {'helpful'")


@pytest.mark.parametrize("split", ["tune", "test"])
def test_too_few_prompts(split: str):
    given = sets()
    given[split]["harmless"] = given[split]["harmless"][:18]
    assert refusal(made, given) == f"{split} has 9 prompts of harmless; at least 10 are needed, of which intervals are drawn"
    given["find"]["harmless"] = given["find"]["harmless"][:1]  # to find neurons on, any number will do
    given[split]["harmless"] = plain_pairs(split, 10)
    made(given)


@pytest.mark.parametrize(("one", "other"), [("find", "tune"), ("find", "test"), ("tune", "test")])
@pytest.mark.parametrize("names", [("helpful", "helpful"), ("helpful", "harmless"), ("harmless", "helpful")])
def test_sets_that_share_a_prompt(one: str, other: str, names: tuple[str, str]):
    """Also where another answer is given, and of another objective."""
    given = sets()
    given[one][names[0]].append(pair("a", "the same?", "yes", "no"))
    given[other][names[1]] += [pair("b", "the same?", "why", "tea"), pair("c", "the same?", "why", "help")]
    message = refusal(made, given)
    assert message.startswith(f"{one} and {other} share 1 prompts, such as that of pair ") and message.endswith(
        "b: a prompt may be in one alone"
    )


@pytest.mark.parametrize("prompt", ["THE same?", "  the  same?\n"])
def test_prompts_that_differ_in_case_or_spaces_alone_are_one(prompt: str):
    given = sets()
    given["find"]["helpful"].append(pair("a", "The same?", "yes", "no"))
    given["test"]["harmless"].append(pair("b", prompt, "why", "tea"))
    assert "find and test share 1 prompts, such as that of pair harmless: b" in refusal(made, given)


def two_prompts(name: str, one: str, other: str) -> PreferencePair:
    """A pair whose sides answer different prompts, as some of HH-RLHF's."""
    return PreferencePair(name, (Message("user", one), Message("assistant", "a")), (Message("user", other), Message("assistant", "b")))


@pytest.mark.parametrize("shared", ["left", "right"])
def test_a_pair_of_two_prompts_is_of_both(shared: str):
    given = sets()
    given["find"]["helpful"].append(two_prompts("two", "left", "right"))
    given["test"]["helpful"].append(pair("one", shared, "a", "b"))
    assert "find and test share 1 prompts, such as that of pair helpful: one" in refusal(made, given)
    assert "find and protect p share 1 prompts, such as that of pair x" in refusal(
        made, sets() | {"find": given["find"]}, protect={"p": [pair("x", shared, "a", "b")]}
    )


def test_protected_sets():
    given = sets()
    tested = given["test"]["helpful"]
    assert made(given, protect={"p": tested}).protect["p"] == tuple(tested)  # what is tested may be protected
    for split in ("find", "tune"):
        message = refusal(made, given, protect={"p": [*plain_pairs("p", 3), pair("x", f"{split} helpful 3?", "a", "b")]})
        assert message == f"{split} and protect p share 1 prompts, such as that of pair x: a prompt may be in one alone"
    assert refusal(made, given, protect={"helpful": tested}).startswith("helpful is an objective and a protected set")
    assert "pairs must not be empty" in refusal(made, given, protect={"p": []})
    assert "pairs must not be empty" in refusal(made, given | {"find": {"helpful": [], "harmless": []}})
