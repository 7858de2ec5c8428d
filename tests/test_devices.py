"""Devices, what is free on each, and what is said where that is not enough. GPUs are simulated."""

import math
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tl_reward import devices, parallel
from tl_reward.devices import Memory, check_device, check_fits, memory_on, says_what_was_free
from tl_reward.errors import InputError, OutOfMemory, is_out_of_memory

GIB = 2**30
CUDA_SAYS = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 3.2 GiB is free."
MPS_SAYS = "MPS backend out of memory (MPS allocated: 17.60 GB, max allowed: 18.13 GB). Tried to allocate 1.00 GB on private pool."


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards of 80 GiB: 10 are free, and torch holds 5 of which it uses 2."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * GIB)


def test_files_in_a_control_groups_cache_count_as_free(tmp_path: Path):
    assert devices._cgroup_rooms(tmp_path) == []
    for name, text in {"memory.max": "1000", "memory.current": "900", "memory.stat": "anon 300\ninactive_file 500\n"}.items():
        (tmp_path / name).write_text(text)
    assert devices._cgroup_rooms(tmp_path) == [600]
    (tmp_path / "memory.max").write_text("max")
    assert devices._cgroup_rooms(tmp_path) == []


def test_a_machine_without_a_control_group_has_what_is_free(monkeypatch: pytest.MonkeyPatch):
    # So it is on macOS, on Windows, and on Linux outside of containers.
    monkeypatch.setattr(devices, "_cgroup_rooms", lambda: [])
    assert 0 < memory_on("cpu").free <= psutil.virtual_memory().total == memory_on("cpu").total
    monkeypatch.setattr(devices, "_cgroup_rooms", lambda: [1000])
    assert memory_on("cpu").free == 1000
    monkeypatch.setattr(parallel, "on_this_machine", lambda: 4)
    assert memory_on("cpu").free == 250


@pytest.mark.parametrize(("processes", "free"), [(1, 13), (2, 13), (3, 8), (4, 8)])
def test_processes_that_share_a_card_share_what_is_free_on_it(processes: int, free: int, cards: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parallel, "on_this_machine", lambda: processes)
    assert memory_on("cuda:1") == Memory(free * GIB, 80 * GIB)


@pytest.mark.parametrize(("host", "free"), [(64, 12), (8, 8), (0, 0)])
def test_apples_gpu_has_what_is_recommended_and_no_more_than_the_host(host: int, free: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_cgroup_rooms", lambda: [host * GIB])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Host", (), {"available": 100 * GIB, "total": 128 * GIB}))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 20 * GIB)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 8 * GIB)
    assert memory_on("mps") == Memory(free * GIB, 20 * GIB)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:2", "no device 'cuda:2' on this machine; there is cpu, cuda:0, cuda:1"),
        ("xpu", "no device 'xpu': models run on cpu, cuda, mps; there is cpu, cuda:0, cuda:1"),
        ("hpu:0", "no device 'hpu:0': models run on cpu, cuda, mps; there is cpu, cuda:0, cuda:1"),
        ("auto", "no device 'auto'; there is cpu, cuda:0, cuda:1"),
        ("cpu:1", "no device 'cpu:1' on this machine; there is cpu, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_here(device: str, says: str, cards: None):
    for here in ("cuda", "cuda:0", "cuda:1", "cpu", None):
        check_device(here)
    with pytest.raises(InputError, match=f"^{says}"):
        check_device(device)


def test_a_gpu_asked_of_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(InputError, match=r"^no device 'cuda' on this machine; there is cpu.* \(torch \S+ is built without CUDA\)$"):
        check_device("cuda")


def test_apples_gpu_has_no_float64(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    check_device("mps", torch.float32)
    with pytest.raises(InputError, match=r"^mps computes no float64; choose float32, or the device cpu$"):
        check_device("mps", torch.float64)


@pytest.mark.parametrize(
    ("billions", "dtype", "says"),
    [
        (
            4,
            torch.float32,
            "14.9 GiB in float32, and 13 GiB are free on cuda:0; what would fit: bfloat16 on cuda:0 or float32 on cpu",
        ),
        (8, torch.bfloat16, "14.9 GiB in bfloat16, and 13 GiB are free on cuda:0; what would fit: bfloat16 on cpu"),
        (8, torch.float64, "59.6 GiB in float64, and 13 GiB are free on cuda:0; what would fit: bfloat16 on cpu"),
        (70, torch.bfloat16, "130 GiB in bfloat16, and 13 GiB are free on cuda:0; it fits on no device of this machine"),
        (3, torch.float32, None),
        (6, torch.bfloat16, None),
    ],
)
def test_a_model_that_does_not_fit(billions: int, dtype: torch.dtype, says: str | None, cards: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_cgroup_rooms", lambda: [20 * GIB])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Host", (), {"available": 100 * GIB, "total": 128 * GIB}))
    if says is None:
        check_fits("m", billions * 10**9, dtype, "cuda:0")
        return
    with pytest.raises(OutOfMemory, match=f"^m: its weights take {says}"):
        check_fits("m", billions * 10**9, dtype, "cuda:0")


def no_room_on_the_cpu() -> None:
    torch.empty(2**60)


def no_room_in_python() -> None:
    bytearray(2**62)


def raiser(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        (raiser(torch.cuda.OutOfMemoryError(CUDA_SAYS)), "20.5 GiB more were wanted, and 13 GiB of 80 GiB are free"),
        (raiser(RuntimeError(MPS_SAYS)), "1 GiB more were wanted, and 13 GiB of 80 GiB are free"),
        (raiser(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")), "13 GiB of 80 GiB are free"),
        (raiser(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might")), "13 GiB of 80 GiB are free"),
        (no_room_on_the_cpu, "more were wanted, and 13 GiB"),
        (no_room_in_python, "13 GiB of 80 GiB are free"),
    ],
)
def test_each_allocators_error_becomes_one_line(fail: Any, says: str, cards: None):
    with pytest.raises(OutOfMemory) as caught, says_what_was_free("score", "cuda:0", helps="less"):
        fail()
    said = str(caught.value)
    assert said.startswith("score: out of memory on cuda:0: ") and says in said and said.endswith("; what helps: less"), said
    assert "\n" not in said and is_out_of_memory(caught.value) and isinstance(caught.value, InputError)


def test_other_errors_stay_as_they_are():
    errors: list[Exception] = [RuntimeError("shape mismatch"), ValueError("out of memory"), InputError("no"), OutOfMemory("once")]
    for error in errors:
        with pytest.raises(type(error)) as caught, says_what_was_free("score", helps="less"):
            raise error
        assert caught.value is error


def test_a_list_of_weights_of_no_number_fits():
    check_fits("m", 0, torch.float32, "cpu")
    with pytest.raises(OutOfMemory, match="it fits on no device"):
        check_fits("m", math.factorial(20), torch.float32, "cpu")
