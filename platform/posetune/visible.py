"""Makes text that others wrote safe to show: every character of it is seen, and none acts.

A name in a data set, a licence, a file's name or an error may hold the escapes by which a terminal
moves its cursor, changes its title or sends its clipboard, and marks that turn the direction of
writing. They are shown as pictures of themselves.
"""

from __future__ import annotations

import re

__all__ = ["visible"]

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for the tab and the line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks of direction and of lines
    "\ud800-\udfff]"  # what stands for bytes that are no text
)
_DELETE = 0x7F


def visible(text: str) -> str:
    """Return a text in which control characters are shown; line feeds and tabs stay.

    Every character stays one, so that tables keep their columns: ESC becomes ␛.
    """
    return _ACTING.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == _DELETE else "\ufffd"
