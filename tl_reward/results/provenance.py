"""Where a result came from."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_reward.data.pairs import data_hash
from tl_reward.data.readers import GivenPairs, as_pairs


def provenance(*, seed: int | None = None, data: Mapping[str, GivenPairs] | None = None) -> dict[str, Any]:
    """Where a result came from: package versions, commit, data hashes, seed, command, machine. Of the command, tokens and passwords are
    left out. `data` counts the pairs that were given, those that are then left out among them."""
    read = {name: as_pairs(pairs) for name, pairs in (data or {}).items()}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *_without_secrets(sys.argv[1:])]),
        "seed": None if seed is None else int(seed),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("tl_reward", "torch", "transformer_lens", "transformers", "numpy")},
        "machine": platform.machine(),
        "data": {name: {"pairs": len(pairs), "sha256": data_hash(pairs)} for name, pairs in read.items()},
    }


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# Options of a script whose value nobody should read in a run that is passed on, and what tokens and passwords in addresses look like.
_SECRET_OPTION = re.compile(r"-.*(token|secret|password|passwd|api[-_]?key|credentials?)", re.IGNORECASE)
_SECRET = re.compile(r"\b(hf|sk|ghp|github_pat)[_-]\w{16,}|(?<=://)[^/\s@]+(?=@)")


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    """
    >>> _without_secrets(["--token", "x", "--api-key=y", "https://me:pw@host/a", "--max-tokens", "512"])
    ['--token', '***', '--api-key=***', 'https://***@host/a', '--max-tokens', '512']
    """
    kept, hide = [], False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        secret = _SECRET_OPTION.fullmatch(option) is not None
        kept.append("***" if hide else f"{option}=***" if secret and equals else _SECRET.sub("***", argument))
        hide = secret and not equals
    return kept


def _commit() -> str | None:
    """The commit of the package's own checkout, with "-dirty" where files differ from it; None for a package that is installed, or that
    lies in a checkout of something else."""
    root = Path(str(files("tl_reward"))).resolve().parent
    try:
        if not (root / ".git").exists() or 'name = "tl_reward"' not in (root / "pyproject.toml").read_text(encoding="utf-8"):
            return None
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            # GIT_DIR and the like, which hooks of another checkout set, would make git speak of that one.
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        )
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
