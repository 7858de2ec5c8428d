"""How long an attack goes on: a short form for every run of the tests, and a long one for `make attack`."""

import os

LONG = os.environ.get("TL_REWARD_ATTACK") == "long"


def tries(short: int, long: int) -> int:
    """How many random trials an attack makes: `long` where `make attack` runs it, else `short`."""
    return long if LONG else short
