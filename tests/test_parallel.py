"""Several processes on the CPU (gloo) give what one gives, fail together, and write once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import parallel_worker
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import tl_reward
from tl_reward import parallel
from tl_reward.analyses.discovery import discover
from tl_reward.data.readers import load_pairs
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.results.store import Results

WORKER = Path(parallel_worker.__file__)
BIN = Path(sys.executable).parent
PATH = os.pathsep.join([str(WORKER.parents[1]), str(Path(tl_reward.__file__).parents[1])])  # the package under test, not an installed one


def run(*command: str) -> subprocess.CompletedProcess[str]:
    # The variable keeps processes off GPUs.
    own = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | own, timeout=120)


def launch(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    # With --cpu, accelerate starts one process, or needs MPI; --multi_gpu starts them.
    options = ["launch", "--multi_gpu", "--num_machines", "1", "--num_processes", str(count), "--main_process_port", "0"]
    return run(str(BIN / "accelerate"), *options, *command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    tiny_hf_model().save_pretrained(folder / "base")
    byte_tokenizer().save_pretrained(folder / "base")
    return folder


@pytest.fixture(scope="module")
def two(folder):
    done = run(sys.executable, str(WORKER), "everything", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def same(folder: Path, what: str, count: int, expected: dict[str, torch.Tensor]) -> None:
    for place in range(count):
        found = load_file(folder / f"{what}{place}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_two_processes_find_what_one_finds(folder, two):
    expected = parallel_worker.everything(parallel_worker.twelve_pairs())
    assert {"score", "mlp_gate mean", "attn_z change", "mlp_post firing helpful", "mlp_post auroc", "gradient error"} <= expected.keys()
    same(folder, "everything", 2, expected)


def test_an_error_in_one_process_is_one_in_all_and_what_does_not_add_up_is_refused(folder, two):
    first, second = ((folder / f"messages{i}.txt").read_text().splitlines() for i in range(2))
    assert second[0].startswith("blocks.1.mlp.hook_post is not finite for") and first[0] == f"process 2 of 2: {second[0]}"
    assert first[1:] == second[1:]
    assert first[1] == "collect_examples runs in one process alone, got 2; start it without accelerate launch or torchrun"
    assert "gives no merge runs in one process alone, got 2" in first[2]
    assert first[3] == "batch_size must be a multiple of the number of processes, 2, got 5" and not (folder / "odd").exists()


@pytest.mark.parametrize("method", parallel_worker.TRAINING)
def test_two_processes_train_to_the_weights_of_one(folder, two, method):
    record = parallel_worker.train(folder / "base", folder / f"one-{method}", parallel_worker.TRAINING[method])
    recorded = json.loads((folder / f"two-{method}" / "training.json").read_text())
    assert recorded["steps"] == record.steps == 6 and recorded["mean_loss"] == pytest.approx(record.mean_loss, abs=2e-4)
    assert {path.name for path in (folder / f"one-{method}").iterdir()} == {path.name for path in (folder / f"two-{method}").iterdir()}
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    one, both = (load_file(folder / f"{count}-{method}" / name) for count in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(both[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    if method == "full":
        start = AutoModelForSequenceClassification.from_pretrained(folder / "base").state_dict()
        assert max((value.float() - start[key]).abs().max() for key, value in one.items() if "layers" in key) > 5e-3


def test_three_processes_with_two_batches_and_one_that_is_killed(folder):
    start = time.time()
    done = launch(3, str(WORKER), "few", str(folder))
    pairs = parallel_worker.twelve_pairs()
    same(folder, "few", 3, parallel_worker.passes(pairs[:1] + pairs[-1:], max_tokens=700))
    assert done.returncode != 0 and "exitcode  : 3" in done.stderr
    assert time.time() - start < 60


ALONE = """
import os, signal, sys, time
import torch
from tl_reward import parallel
from tl_reward.errors import one_line_errors
with one_line_errors("alone"):
    parallel.gathered(None)
    with parallel.together():
        if parallel.rank() == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        while sys.argv[2] == "works":
            parallel.look_around()
            time.sleep(0.05)
        parallel.add_up(torch.ones(1))
"""


@pytest.mark.parametrize(("killed", "does"), [(0, "works"), (1, "waits")])
def test_where_no_launcher_ends_them_a_killed_process_ends_the_others_in_one_line(killed, does):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, str(killed), does], env=os.environ | own | {"RANK": str(i)}, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    ends = [(process.communicate(timeout=100)[1], process.returncode) for process in processes]
    said, status = ends[1 - killed]
    assert ends[killed][1] == -signal.SIGKILL and status == 2
    lines = [line for line in said.splitlines() if line.startswith("alone:")]
    assert lines == [f"alone: another of the 2 processes has ended, and so process {2 - killed} does; it may have said why"]
    assert "Traceback" not in said


def test_a_command_writes_one_run_and_prints_it_once(folder):
    command = ["discover", str(folder / "base"), "--pairs", "embedded", "--limit", "12", "--device", "cpu", "--out", str(folder / "run")]
    done = launch(2, str(BIN / "tl-reward"), *command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Run: ") == 1 and done.stderr.count("1 of 2 shares") == 1
    assert not [path for path in folder.iterdir() if path.name.startswith(".run")]
    found = discover(tiny_reward_model(), load_pairs("embedded", split="find", limit=12))
    torch.testing.assert_close(Results.load(folder / "run").tensor("discovery", "base", "mlp_post/mean"), found.by_side["mlp_post", "mean"])


def test_shares_are_of_about_the_same_size_and_may_be_empty():
    assert parallel.deal([4, 4], 3) == [[0], [1], []]
    sizes = [7, 1, 3, 9, 2, 8]
    hands = parallel.deal(sizes, 2)
    assert sorted([*hands[0], *hands[1]]) == [*range(6)] and [sum(sizes[i] for i in hand) for hand in hands] == [15, 15]
    assert parallel.deal(sizes, 1) == [[*range(6)]]


def test_one_process_leaves_torch_distributed_alone(monkeypatch):
    assert (parallel.count(), parallel.rank(), parallel.device()) == (1, 0, None)
    monkeypatch.setenv("WORLD_SIZE", "4")  # of another program's: nobody launched this one
    assert parallel.count() == 1 and parallel.gathered("a") == ["a"]
    with pytest.raises(KeyError), parallel.together():
        raise KeyError
    assert not torch.distributed.is_initialized()
