"""The one escape of every string that plotly gets. plotly reads some markup in titles, labels, legends and hovers, links among it, and text
of a run comes from strangers: so a string is text, but for what our own code has marked."""

import html
import re
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go

# No text of a run can hold these: they are new in every process, and never leave it.
_BEGIN, _END = (f"\x1a{secrets.token_hex(8)}\x1a" for _ in range(2))
_MARKED = re.compile(f"{_BEGIN}(.*?){_END}", re.DOTALL)


# plotly keeps legend groups and categories as keys of JavaScript objects, which have these already.
_TAKEN = frozenset({
    "constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf", "__proto__",
    "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__",
})  # fmt: skip
_UNSEEN = "\u2060"  # a character of no width


class EscapedFigure(go.Figure):
    """A figure that `escaped` has made: a page takes no other."""


def markup(ours: str) -> str:
    """Markup for plotly, or a template of a hover: of our own code alone, with nothing of a run in it.

    >>> escape(markup("%{y}<extra>") + "<b>" + markup("</extra>"))
    '%{y}<extra>&lt;b&gt;</extra>'
    """
    return f"{_BEGIN}{ours}{_END}"


BREAK = markup("<br>")


def escape(text: str) -> str:
    """Text as plotly shows it, whatever is in it, but for what `markup` has marked: no tag, no MathJax (`$`), no template (`%{`)."""
    plain = "".join(piece if i % 2 else _plain(piece) for i, piece in enumerate(_MARKED.split(text)))
    return plain + _UNSEEN if plain in _TAKEN else plain


def escaped(figure: go.Figure) -> EscapedFigure:
    """The figure with all its strings escaped, whatever they are for. Every function that gives a figure ends with it."""
    result = EscapedFigure(figure)
    parts: list[Any] = [*result.data, result.layout]
    for part in parts:
        for path, value in _changed(part.to_plotly_json(), ()):
            part[path] = value
    return result


def _plain(text: str) -> str:
    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "&#37;{")


def _changed(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Where a part of a figure holds strings that escaping changes, and what they become. A list of values is one value."""
    if isinstance(value, dict):
        for key, each in value.items():
            if (*path, key) != ("template",):  # plotly's own
                yield from _changed(each, (*path, key))
    elif isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
        for i, each in enumerate(value):
            yield from _changed(each, (*path, i))
    elif isinstance(value, np.ndarray) and value.dtype.kind not in "OUS":
        return
    elif isinstance(value, str | list | tuple | np.ndarray) and (new := _whole(value)) != (plain := _listed(value)):
        assert type(new) is type(plain)
        yield path, new


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


def _whole(value: Any) -> Any:
    """A string, or all those of a list of lists."""
    value = _listed(value)
    return [_whole(each) for each in value] if isinstance(value, list) else escape(value) if isinstance(value, str) else value
