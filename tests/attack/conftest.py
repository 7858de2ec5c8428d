"""Every test of this folder is an attack: it tries to break the package, and checks that it says so in one line and loses nothing."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("attack")
