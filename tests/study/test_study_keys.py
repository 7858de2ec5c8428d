"""The keys by which cells on disk are known again: another key for the same work would make a study compute all of it again."""

import pytest

from tl_reward.study.compute.cells import cells, key
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.config import parse_config

PAIRS = {"train": [{"source": "embedded", "limit": 12}], "test": ["embedded"]}
TABLE = {
    "bases": [{"name": "small", "source": "smollm2-135m-instruct"}],
    "objectives": ["helpful", "harmless", "mixed"],
    "seeds": [1],
    "training": {"epochs": 2, "learning_rate": 1e-3, "save_every": 7},
    "data": {"helpful": PAIRS, "harmless": PAIRS},
    "benchmarks": {"HH-RLHF": [{"source": "embedded", "limit": 20}]},
    "rankings": ["mean", "entropy", "random"],
    "fractions": [0.1, 1],
    "set_fractions": [0.1],
    "patch_fractions": [0.05],
    "draws": 2,
    "limits": {"rows": 4, "edited": {"objective test": 3}, "discovery": 5},
    "retrain": {"kinds": ["masked", "pruned"], "fractions": [0, 0.1], "objectives": ["mixed"], "pairs": 4},
    "max_length": 512,
    "conventions": "study",
}
# Of studies that are on disk. A key may change only with what its cell computes or holds, and then for all (`cells.FORMAT`).
KEYS = {
    "train small, mixed, 1": "dcc42a99061b218a49a3e6b7b4b29a4e41a501e8f340b133ba7b11d312ff5913",
    "score small, mixed, 1, objective test": "334b05c7f1f3909ad57879f94c42c6781575126fe4c6b1c3104dad725e7cfb44",
    "discover small, mixed, 1": "6455548af7b5c4fe89f4b88b6785c433c520d4d9d3f1bbaf4c6040e1866c0dc0",
    "firing small, mixed, 1": "f0a394f5537286e1ebc588a00d753cd665a99d8c6c0e0adeeb1c54b51c93aec8",
    "ablate small, mixed, 1, mean, objective test": "2c9073831feebcf9d173b8881d83ec5b3a8a9a1669cad55d3bfc2cd5a9bfe3bf",
    "compare small, 1": "a161a81af3b66383fb66709f25bfed65a701cbfda5bc6cb31a137b365c988172",
    "sets small, mixed, 1, objective test": "eeb9df0a558071d5b7f227e784cd16e1b9b77a9a9339d36f62f72e44d658c0ea",
    "patch small, mixed, 1, objective test": "400ec94e6dc820fce1e2aff80eff1b059c6fcdd066b9444839dcb61a3d22ce63",
    "retrain small, mixed, 1, masked mean 0.0": "14ea8f213581f8219fafd99e7d42bcd5ec1da14ed8d078eec6559cb1f0376354",
}


@pytest.mark.parametrize("name", KEYS)
def test_the_key_of_the_same_work_is_the_same(name):
    config = parse_config(TABLE)
    (cell,) = [cell for cell in cells(config) if f"{cell.kind} {cell.name}" == name]
    assert key(cell, Inputs(config, None)) == KEYS[name]


def test_a_cell_of_every_kind_has_its_key_here():
    assert {name.split()[0] for name in KEYS} == {cell.kind for cell in cells(parse_config(TABLE))}
