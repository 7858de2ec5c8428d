"""Published reward models, each laid out as its family publishes it, against what its own modelling code computes.

The layouts and the references are in `helpers.published`: they were written from the published code, and know nothing of the reader.
"""

from pathlib import Path

import pytest
import torch
from helpers.published import tokenizers
from helpers.published.families import MATRIX, PROCESS, REWARDS, SEVERAL
from helpers.published.family import Chat, Family
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

import tl_reward
from tl_reward import HookedRewardModel, InputError, PreferencePair

CLOSE = {"atol": 1e-4, "rtol": 0.0}
# Of different lengths, all longer than the windows; one has two turns, so that a gate that looks for the prompt's end finds two.
CHATS: tuple[Chat, ...] = (
    (("user", "Is it?"), ("assistant", "Yes.")),
    (("user", "Name two rivers of Europe."), ("assistant", "The Rhine and the Danube, to name two of many.")),
    (("user", "And?"), ("assistant", "What?"), ("user", "Another one, please!"), ("assistant", "No — sorry.")),
)
PAIRS = [
    PreferencePair("rivers", chosen=CHATS[1], rejected=(CHATS[1][0], ("assistant", "Two rivers."))),  # pyright: ignore[reportArgumentType]
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each family's checkpoint is, as far as it was asked for."""
    return {"": tmp_path_factory.mktemp("published")}


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def folder(family: Family, folders: dict[str, Path]) -> Path:
    if family.name not in folders:
        folders[family.name] = family.write(folders[""] / family.name)
    return folders[family.name]


def each(families: tuple[Family, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", families, ids=lambda family: family.name, indirect=True)


def test_the_matrix_is_wide() -> None:
    assert len(MATRIX) >= 30 and len({family.name for family in MATRIX}) == len(MATRIX)


HF = {"ForSequenceClassification": AutoModelForSequenceClassification, "ForTokenClassification": AutoModelForTokenClassification}


@each(tuple(family for family in MATRIX if family.head.shapes(4).keys() <= {"score.weight", "score.bias"} and "dpa-bias" != family.name))
def test_references_are_hugging_faces_where_it_has_the_class(family: Family, folder: Path) -> None:
    kind = AutoModelForTokenClassification if family in PROCESS else AutoModelForSequenceClassification
    if not family.head.shapes(4):
        kind = AutoModelForCausalLM
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for chat in CHATS:
        tokens = family.tokens(chat)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0]
        if family in PROCESS:
            torch.testing.assert_close(family.per_token(folder, tokens).float(), logits[:, 1] - logits[:, 0], **CLOSE)
        elif family.names:
            torch.testing.assert_close(family.outputs(folder, tokens), logits, **CLOSE)
        elif family.options:
            plus, *minus = map(int, family.options["head"].removeprefix("token:").split("-"))
            expected = logits[-1, plus] - (logits[-1, minus[0]] if minus else 0.0)
            torch.testing.assert_close(torch.tensor(family.reward(folder, tokens)), expected, **CLOSE)
        else:
            torch.testing.assert_close(torch.tensor(family.reward(folder, tokens)), logits[0], **CLOSE)
