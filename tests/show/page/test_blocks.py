"""What stands in a page as data: numbers that are none become null, and the same data give the same text."""

import base64
import gzip
import json
import math

from tl_reward.show.page.blocks import json_block


def unpacked(text: str) -> object:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_what_is_no_finite_number_is_null():
    value = {"a": [1.0, math.nan], "b": (math.inf, {"c": -math.inf, "d": "nan", "e": 2, "f": True, "g": None})}
    expected = {"a": [1.0, None], "b": [None, {"c": None, "d": "nan", "e": 2, "f": True, "g": None}]}
    assert unpacked(json_block(value)) == expected
    assert json_block(value) == json_block(expected)
