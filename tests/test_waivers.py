"""Where the type checker is told to look away: each place names its rule and its reason, and there are fewer of them, never more."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST = 9
SWITCH = re.compile(r"#\s*(pyright|type)\s*:", re.IGNORECASE)  # a whole file's rules are switched by such a comment too
WAIVER = re.compile(r"# pyright: ignore\[report\w+(, report\w+)*\] - \w.+")


def waivers(folder: Path) -> dict[str, str]:
    """Comments that switch the type checker, by file and line. What a string holds is no comment."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT and SWITCH.search(token.string):
                    found[f"{path.relative_to(folder)}:{token.start[0]}"] = token.string
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    parts = {part: waivers(ROOT / part) for part in ("tl_reward", "experiments", "tests", "benchmarks")}
    return {f"{part}/{place}": comment for part, places in parts.items() for place, comment in places.items()}


def test_waivers_only_become_fewer(found: dict[str, str]):
    assert len(found) <= MOST, f"{len(found)} waivers, {MOST} are allowed; narrow the type instead: {found}"
    assert len(found) == MOST, f"only {len(found)} waivers are left: lower MOST from {MOST} to {len(found)}"


def test_waivers_name_their_rule_and_their_reason(found: dict[str, str]):
    assert {place: comment for place, comment in found.items() if not WAIVER.fullmatch(comment)} == {}


def test_waivers_are_found(tmp_path: Path):
    # Guards the tests above: they pass where nothing is found.
    (tmp_path / "a.py").write_text("x = 1  # type: ignore\ny = '# type: ignore'\nz = 2  # pyright:ignore[reportX] - so\n# pyright: basic\n")
    assert waivers(tmp_path) == {"a.py:1": "# type: ignore", "a.py:3": "# pyright:ignore[reportX] - so", "a.py:4": "# pyright: basic"}
    assert WAIVER.fullmatch("# pyright: ignore[reportX, reportY] - a stub is wrong")
    assert not any(WAIVER.fullmatch(f"# pyright: ignore{rest}") for rest in ("", "[reportX]", "[reportX] - ", " - a reason", "[]"))
