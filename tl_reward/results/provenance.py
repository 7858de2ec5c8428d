"""Where a result came from."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_reward.data.pairs import PreferencePair, data_hash


def provenance(*, seed: int | None = None, data: Mapping[str, Sequence[PreferencePair]] | None = None) -> dict[str, Any]:
    """Where a result came from: package versions, commit, data hashes, seed, command, machine."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("tl_reward", "torch", "transformer_lens", "transformers", "numpy")},
        "machine": platform.machine(),
        "data": {name: {"pairs": len(pairs), "sha256": data_hash(pairs)} for name, pairs in (data or {}).items()},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the package's own checkout, with "-dirty" where files differ from it; None for an installed package."""
    root = Path(str(files("tl_reward"))).resolve().parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
