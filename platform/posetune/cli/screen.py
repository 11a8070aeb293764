"""Shows progress and tables on a terminal. Machines read `--json` instead."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from posetune.api import Progress, silent
from posetune.visible import visible

__all__ = ["Screen", "console", "interruptible", "print_json", "progress_bar"]


class Screen(Console):
    """The one way to print for people: what a string holds is shown, and none of it acts.

    Names, paths, licences and errors are not ours. In no string are brackets taken for markup,
    words between colons for pictures, or control characters sent to the terminal. Whoever wants a
    style gives a `Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as a text; here it has its width for the columns of a table."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is sent to the terminal; rich comes here with everything that it prints."""
        for segment in super().render(renderable, options):
            if segment.control:  # rich's own, which moves the cursor of a live table
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Return a block with a spinner beside a text; rich would take a string for markup."""
        shown = Text(visible(status)) if isinstance(status, str) else status
        return super().status(shown, **options)


console = Screen(stderr=True)
"""Console on standard error, for people; standard output is for results."""

LINE_EVERY_S = 60.0
"""Longest time without a line, where output is no terminal."""


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value, indent=1, default=str))


@contextmanager
def progress_bar(title: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show how far a long piece of work is; without a terminal, a line a minute."""
    title = visible(title)
    if quiet:
        yield silent
    elif not console.is_terminal:
        yield _Lines(title)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bars(*columns, console=console) as bars:
            task = bars.add_task(title, total=None, note="")

            def update(done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total, note=visible(note))

            yield update


@contextmanager
def interruptible() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost, for a command that continues when it is given again."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; the same command again continues it")
        raise typer.Exit(130) from None


class _Rate(ProgressColumn):
    """Shows how many units of work are done per second."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:,.1f}/s")


class _Lines:
    """Shows progress as plain lines, for logs.

    What is done at the first call of a piece of work was done before: it counts for nothing in
    rate and time left.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._started = self._last = time.monotonic()
        self._work: tuple[int, int] | None = None
        """What was done of how much when this piece of work began."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._work is None or self._work[1] != total or done < self._work[0]:
            self._work, self._started = (done, total), now
            if note and done < total:
                console.print(f"{self._title}: {done}/{total}, {note}")
        if now - self._last >= LINE_EVERY_S or done >= total:
            self._last = now
            seconds, new = now - self._started, done - self._work[0]
            speed = f", {new / seconds:.1f}/s" if new and seconds else ""
            left = f", {seconds / new * (total - done):.0f} s left" if new else ""
            last = f", {note}" if note else ""
            console.print(f"{self._title}: {done}/{total} after {seconds:.0f} s{speed}{left}{last}")
