"""How do the styles of the two answers of an RM-Bench pair compare?"""

from typing import Literal

from tl_reward.errors import InputError

Style = Literal["easy", "normal", "hard"]


def style_of(pair_id: str) -> Style:
    """ "easy" where the chosen response is styled more than the rejected one, "normal" where alike, "hard" where less.

    Styles: 0 concise, 1 detailed plain text, 2 detailed markdown. `pairs.pairs_of_row` ends the ids of a row's pairs with CHOSEN-REJECTED.

    Raises:
        InputError: an id that ends otherwise.

    >>> style_of("8/0-2"), style_of("8/1-1"), style_of("8/2-0")
    ('hard', 'normal', 'easy')
    """
    chosen, _, rejected = pair_id.rpartition("/")[2].partition("-")
    if not {chosen, rejected} <= {"0", "1", "2"}:
        raise InputError(f"pair {pair_id}: an id of RM-Bench ends with CHOSEN-REJECTED, each a style from 0 to 2, such as 8/0-2")
    return "hard" if chosen < rejected else "easy" if chosen > rejected else "normal"
