"""Holds what a page is made of: paragraphs, tables, pictures; the template turns them into HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

__all__ = ["Block", "Code", "Folded", "Grid", "Heading", "PageTable", "Paragraph", "Picture"]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading below a section's."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Code:
    """Commands or a file, as they are."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class PageTable:
    """A table; columns of numbers alone are set flush right."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    best: int | None = None
    """The row to set in bold."""
    trials: Sequence[int] = ()
    """The trial that each row is about; with a script a person can select it there."""

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[str(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers alone."""
        rows = self.cells
        return [
            bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(self.head))
        ]


@dataclass(frozen=True)
class Picture:
    """A picture with a text that says what it shows."""

    kind: ClassVar[str] = "picture"
    data: bytes
    media_type: str
    text: str
    wide: bool = False
    """Whether it scrolls in a box of its own instead of becoming unreadably small."""
    figure: Mapping[str, Any] | None = None
    """The chart for Plotly; the picture is then for print and for browsers without scripts."""

    @classmethod
    def of_svg(
        cls, svg: str, text: str, *, wide: bool = False, figure: Mapping[str, Any] | None = None
    ) -> Picture:
        """Return a chart as a picture, and as a figure for Plotly where there is one."""
        return cls(svg.encode(), "image/svg+xml", text, wide, figure)

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Grid:
    """Cells beside each other, as many as fit."""

    kind: ClassVar[str] = "grid"
    cells: Sequence[Sequence[Block]]


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when somebody asks for them."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: Sequence[Block]


Block: TypeAlias = Paragraph | Heading | Code | PageTable | Picture | Grid | Folded


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())
