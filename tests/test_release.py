"""What a release needs beside the code: one version, a changelog of known form, a citation that tools read, the Pythons that are tried."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelog_has_a_heading_for_each_version_the_newest_first():
    first, *versions = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert first == "[Unreleased]"
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", each) for each in versions]
    numbers = [tuple(map(int, each.groups())) for each in found if each is not None]
    assert len(numbers) == len(versions) and numbers == sorted(set(numbers), reverse=True)
    assert max(numbers, default=(0, 0, 0)) <= tuple(map(int, PROJECT["version"].split(".")))


def test_the_version_stands_in_one_place():
    assert PROJECT["version"] == "0.1.0" or "None has been" not in read("CHANGELOG.md")
    assert "version" not in yaml.safe_load(read("CITATION.cff")) and "__version__" not in read("tl_reward/__init__.pyi")


def test_the_citation_is_one():
    """Of Citation File Format 1.2.0: the keys that it asks for, and none that it does not know."""
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software" and cited["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= {*cited}
    assert {*cited} <= {"cff-version", "message", "type", "title", "abstract", "authors", "license", "keywords", "references"}
    assert cited["authors"] == [{"name": "The tl_reward authors"}]
    (study,) = cited["references"]
    assert {"type", "title", "authors"} <= {*study} and study["url"] == "https://arxiv.org/abs/2606.13209"
    assert [{*author} for author in study["authors"]] == [{"given-names", "family-names"}] * 2


def test_forms_for_issues_can_be_read():
    forms = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))]
    assert len(forms) == 3
    for form in forms:
        assert {"name", "description", "body"} <= {*form}
        assert all(each["type"] in ("markdown", "textarea") for each in form["body"])
    asked = {each["id"]: each for each in forms[0]["body"] if "id" in each}
    assert {"command", "versions", "provenance"} <= {*asked} and asked["command"]["validations"]["required"]


def test_the_pythons_that_are_named_are_those_that_ci_tries():
    named = {each.rpartition(" :: ")[2] for each in PROJECT["classifiers"] if each.startswith("Programming Language :: Python ::")}
    (tried,) = re.findall(r"^for version in ([\d. ]+); do \.ci/light", read(".ci/run"), re.MULTILINE)
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert named == {oldest, *tried.split()}
