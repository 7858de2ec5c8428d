"""What is drawn in a plotly figure."""

from typing import Any

import plotly.graph_objects as go


def traces_of(figure: go.Figure) -> list[Any]:
    """The figure's traces. plotly's types know none of their attributes."""
    return list(figure.data)
