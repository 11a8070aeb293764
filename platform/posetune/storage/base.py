"""What any storage offers. Names are relative, with `/` between their parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["CLAIM_S", "Log", "Storage", "StorageError"]

CLAIM_S = 30.0
"""A claim that was not touched for so long belongs to a dead holder; it is touched every 5 s."""


class StorageError(OSError):
    """Storage that is not on this machine refuses us or does not answer; the message says what."""


@dataclass(frozen=True)
class Log:
    """A file that what a process prints is appended to."""

    file: Path
    keep: Callable[[], None] = lambda: None
    """Puts what was written so far where others can read it."""
    close: Callable[[], None] = lambda: None
    """The same for the last time."""


class Storage(ABC):
    """A place for folders and small files; travels to any node."""

    poll_s: ClassVar[float]
    """How often to look whether something is there by now."""

    @property
    @abstractmethod
    def address(self) -> str:
        """What `open_storage` was given."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that it can be written to.

        Raises:
            BadInputError: it cannot.
        """

    @abstractmethod
    def visited(self) -> AbstractContextManager[None]:
        """Take back at the end of a block the empty folders that were made for this one in it."""

    @abstractmethod
    def where(self, name: str) -> str:
        """Return where a name lies, for people and for the command line."""

    @abstractmethod
    def uri(self, name: str) -> str:
        """Return where a name lies, as a URI."""

    # -- folders ---------------------------------------------------------------------------

    @abstractmethod
    def writing(self, name: str, *, last: str = "") -> AbstractContextManager[Path]:
        """Give an empty folder; what is in it at the end of the block is then there under `name`.

        If the block raises, nothing is there.

        Args:
            name: of the folder; one that is not there yet.
            last: the file in it that says that it is whole.
        """

    @abstractmethod
    def reading(self, name: str) -> AbstractContextManager[Path | None]:
        """Give a folder with what is under `name`, None if nothing is; it may go with the block."""

    @abstractmethod
    def obtain(self, name: str, *, marker: str, again: bool = False) -> Path | None:
        """Return a folder of this node with what is under `name`, to be kept and shared.

        Args:
            name: of the folder.
            marker: the file in it that says that it is whole and what it holds.
            again: this node's copy was found broken; fetch it anew.
        """

    @abstractmethod
    def mirror(self) -> Path:
        """Return a folder of this node with everything that is here, to be kept and shared.

        Raises:
            BadInputError: it cannot be fetched.
        """

    @abstractmethod
    def set_aside(self, name: str, *, marker: str) -> None:
        """Make room for a new folder where `obtain` has found a broken one."""

    # -- names -----------------------------------------------------------------------------

    @abstractmethod
    def children(self, name: str) -> list[str]:
        """Return the last parts of the names below `name`, sorted."""

    @abstractmethod
    def measure(self, name: str) -> tuple[int, float]:
        """Return the bytes of all files below `name`, and when it was made, s since the epoch."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def read(self, name: str, start: int = 0) -> bytes:
        """Return what a file holds from byte `start` on; nothing if there is none."""

    @abstractmethod
    def touch(self, name: str) -> None:
        """Make an empty file."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file or folder, if it is there."""

    # -- the rest --------------------------------------------------------------------------

    @abstractmethod
    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Hold a name that only one process can hold, on whatever node; False if another does.

        Who dies holding it loses it after `CLAIM_S`.
        """

    @abstractmethod
    def is_claimed(self, name: str) -> bool:
        """Whether somebody who lives holds the name."""

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[tuple[str, Any]]:
        """Give a throw-away folder that every node sees: its path, and its pyarrow filesystem.

        It is empty; what a killed process left there is gone.
        """

    @abstractmethod
    def log(self, name: str) -> Log:
        """Begin a log of this process, after what others have written under the name."""

    @abstractmethod
    def read_log(self, name: str, start: int = 0) -> bytes:
        """Return all that was logged under a name, from byte `start` on."""
