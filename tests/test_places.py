"""What depends on where a file stands: each of these went on without an error, and with another result, when files moved."""

import importlib
import pkgutil
import subprocess
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import tl_reward
from tl_reward.data.batches.padding import batches
from tl_reward.data.encoding import Row
from tl_reward.data.readers import EMBEDDED_FILE
from tl_reward.interventions.protocol import hooks_of
from tl_reward.interventions.user_code import guarded, is_ours, raised_at
from tl_reward.model import embedded
from tl_reward.results.provenance import provenance
from tl_reward.show.page.blocks import ASSETS, front

PACKAGE = Path(tl_reward.__file__).resolve().parent
ROOT = PACKAGE.parent


def classes_with_hooks() -> list[type]:
    """Every class of the package that gives hooks for a batch."""
    found: dict[type, None] = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "tl_reward."):
        for value in vars(importlib.import_module(info.name)).values():
            named = isinstance(value, type) and value.__module__.startswith("tl_reward.") and callable(getattr(value, "hooks", None))
            if named and not isinstance(value, torch.nn.Module) and not issubclass(value, torch.nn.Module):
                found[value] = None
    return [*found]


@dataclass
class Theirs:
    """An edit in place, as a user may write one."""

    per_token: ClassVar[bool] = True

    def hooks(self, batch: Any) -> list[tuple[str, Any]]:
        return [("hook_embed", lambda activation, hook: activation.zero_())]


def test_edits_of_the_package_get_no_copy_and_those_of_users_do():
    assert {"ZeroAblation", "Patch", "PathPatch", "HeadPatch", "FunctionIntervention"} <= {kind.__name__ for kind in classes_with_hooks()}
    for kind in classes_with_hooks():
        assert is_ours(object.__new__(kind)), kind
    ((_, hook),) = hooks_of([Theirs()], next(iter(batches([Row((1, 2), 1)], max_tokens=8))))
    given = torch.ones(1, 2, 3)
    edited = hook(given, hook=None)
    assert not is_ours(Theirs()) and given.eq(1).all() and edited is not None and edited.eq(0).all()


def test_a_mistake_is_shown_where_the_user_made_it_and_not_in_the_package():
    def theirs(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        return activation[99]

    with pytest.raises(tl_reward.InputError, match=rf"IndexError at {Path(__file__).name}:\d+"):
        guarded("hook_embed", theirs)(torch.ones(2, 3), hook=None)
    with pytest.raises(tl_reward.InputError) as caught:
        tl_reward.NeuronSet.parse(["x"])
    # It came up in the package: the place is that of the caller, this file.
    assert raised_at(caught.value).startswith(f"{Path(__file__).name}:")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the commit is that of a checkout, and this package is installed without one")
def test_the_commit_is_that_of_the_checkout():
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert provenance()["commit"].removesuffix("-dirty") == head


def test_what_travels_with_the_package_is_found():
    assert EMBEDDED_FILE.is_file()
    for name in embedded.REWARD_MODELS:
        assert (embedded.ADAPTERS / name / "adapter_model.safetensors").is_file()
    assert "<html" in front("page.html") and (ASSETS / "vendor" / "PLOTLY_LICENSE").is_file()


def test_every_file_of_the_package_is_installed():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["tl_reward"]
    tracked = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [str(path) for path in tracked if path.suffix != ".py" and not any(fnmatch(str(path), glob) for glob in globs)] == []
    # A folder of Python without __init__.py would be left out of a wheel.
    assert {path.parent for path in tracked if path.suffix == ".py"} == {path.parent for path in tracked if path.name == "__init__.py"}
    for glob in globs:
        assert any(fnmatch(str(path), glob) for path in tracked), f"{glob} names no file"
