"""What every page is made of: a template, a policy, and data as gzip and base64, so that no text of a run is ever markup. front/data.js
reads them."""

import base64
import gzip
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from plotly.utils import PlotlyJSONEncoder

from tl_reward.show.plots.escape import EscapedFigure

# Where the front end and plotly.js are: beside the Python of the page.
ASSETS = files("tl_reward.show.page")
# Half precision keeps three digits over nine orders of size; a scale per column puts the largest number here.
_LARGEST_HALF = 32768.0


def packed(data: bytes) -> str:
    """gzip, then base64. The same data give the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def json_block(value: Any) -> str:
    """What is no finite number becomes null: the page shows a dash."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return packed(text.encode("utf-8", "surrogatepass"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figure_json(figure: EscapedFigure) -> dict[str, Any]:
    """A figure for `json_block`. None but one whose strings are escaped gets on a page."""
    if not isinstance(figure, EscapedFigure):
        raise TypeError(f"expected an EscapedFigure, which tl_reward.show.plots.escape.escaped makes, got {type(figure).__name__}")
    whole = json.loads(json.dumps(figure.to_plotly_json(), cls=PlotlyJSONEncoder))
    whole["layout"].pop("template", None)  # the largest part of it; the page has its own, for light and dark
    return {"data": whole["data"], "layout": whole["layout"]}


def array_block(values: Num[np.ndarray, "..."]) -> str:
    """Little-endian numbers, the first byte of each, then the second of each, and so on: bytes of a kind compress better together."""
    values = np.ascontiguousarray(values)
    columns = values.astype(values.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, values.dtype.itemsize)
    return packed(np.ascontiguousarray(columns.T).tobytes())


def halves(values: Float[np.ndarray, "..."], *, bits: int = 10) -> tuple[Float[np.ndarray, "..."], float]:
    """float16 numbers, and what to multiply them with. Numbers of less than a billionth of the largest lose digits.

    Args:
        bits: of the fraction that are kept, of 10, which is three digits; those left out are 0, and cost nothing once they are packed.

    >>> values, scale = halves(np.array([0.5, -0.25]))
    >>> values.tolist(), scale
    ([32768.0, -16384.0], 1.52587890625e-05)
    """
    finite = np.abs(values[np.isfinite(values)])
    scale = float(finite.max()) / _LARGEST_HALF if finite.size and finite.max() > 0 else 1.0
    whole = (values / scale).astype(np.float16)
    drop = 10 - bits
    kept = (whole.view(np.uint16).astype(np.uint32) + (1 << drop >> 1)) >> drop << drop  # to the nearest
    return kept.astype(np.uint16).view(np.float16), scale


def front(name: str) -> str:
    """The text of a file of the page's front end."""
    return (ASSETS / "front" / name).read_text(encoding="utf-8")


def plotly_block() -> str:
    """plotly.js as a block: its cartesian bundle, which is kept packed."""
    (name,) = [item for item in (ASSETS / "vendor").iterdir() if item.name.endswith(".js.gz")]
    return base64.b64encode(name.read_bytes()).decode("ascii")


def elements(blocks: Mapping[str, str]) -> str:
    """Blocks as elements of a page; front/data.js finds them by name."""
    return "\n".join(f'<script type="text/plain" id="block-{name}">{block}</script>' for name, block in blocks.items())


def policy(*, scripts: str = "", connect: str = "'none'") -> str:
    """The Content-Security-Policy of a page: nothing is loaded but what it holds itself.

    Args:
        scripts, connect: further sources.
    """
    return (
        f"default-src 'none'; script-src 'unsafe-inline' blob: {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with %%NAME%% replaced, in one pass: what is put in is never searched for further marks.

    >>> filled("<p>%%A%% and %%B%%</p>", {"A": "%%B%%", "B": "b"})
    '<p>%%B%% and b</p>'
    """
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(template.split("%%")))
