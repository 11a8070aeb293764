"""Gives the script that draws charts in a browser, small enough to travel in every page."""

from __future__ import annotations

import base64
import functools
import gzip

__all__ = ["packed_plotly"]


@functools.cache
def packed_plotly() -> str:
    """Return Plotly's script as gzip in base64: two megabytes instead of five.

    A browser unpacks it by itself (`DecompressionStream`). The bytes are always the same, so the
    same sweep gives the same page.
    """
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
