"""Every test of this folder is an attack: it tries to break the package, and checks that it says so in one line and loses nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.forked import Forks, make_root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("attack")


@pytest.fixture(scope="session")
def forked_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, in which `forks` runs commands."""
    return make_root(tmp_path_factory.mktemp("forked"))


@pytest.fixture(scope="session")
def forks(forked_root: Path) -> Iterator[Forks]:
    """One for all attacks: it imports torch once."""
    forks = Forks(forked_root)
    yield forks
    forks.close()
