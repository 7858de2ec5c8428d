"""What tests ask for by name: models, tiny and real, and processes that run commands. Registered by conftest.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from helpers.architectures import ARCHITECTURES, hf_model
from helpers.forked import Forks, make_root
from helpers.scripts import Scripts
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model


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


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """Runs scripts, each in a process of its own, which imports the package anew, but not what that needs."""
    scripts = Scripts(tmp_path_factory.mktemp("scripts"))
    yield scripts
    scripts.close()


@pytest.fixture(scope="module", autouse=True)
def threads(request) -> None:
    """As many as there are for a file that runs the real models, shared among pytest's workers. Else one: handing the small products of
    tiny models to several costs more than it saves, and what is compared to the bit with another process must not depend on the files that
    ran before."""
    here = [item for item in request.session.items if item.path == request.path]
    real = any("real_base" in getattr(item, "fixturenames", ()) for item in here)
    cores = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    torch.set_num_threads(cores if real else 1)


@pytest.fixture(params=ARCHITECTURES, scope="module")
def hf(request: pytest.FixtureRequest) -> PreTrainedModel:
    return hf_model(request.param)


@pytest.fixture(scope="module")
def hooked(hf: PreTrainedModel) -> HookedRewardModel:
    return HookedRewardModel.from_hf(hf, byte_tokenizer())


@pytest.fixture(scope="session")
def tiny() -> HookedRewardModel:
    return tiny_reward_model()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model, to train from."""
    folder = tmp_path_factory.mktemp("base")
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def real_base() -> str:
    """The embedded base model's folder."""
    try:
        folder = str(embedded.base_folder())
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded base model cannot be fetched: {error}")
    return folder
