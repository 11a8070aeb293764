"""Defines what any storage offers, whether it is a folder or a bucket.

Everything in a storage has a name: a relative path with `/` between its parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["CLAIM_S", "Log", "Storage", "StorageError"]

CLAIM_S = 30.0
"""Seconds after which a claim that nobody touched belongs to a dead holder; a living one touches
its claim every 5 s."""


class StorageError(OSError):
    """Says that storage on another machine refuses us or does not answer, and what it answered."""


@dataclass(frozen=True)
class Log:
    """Holds the file to which a process appends what it prints."""

    file: Path
    """A file of this node, to append to."""
    keep: Callable[[], None] = lambda: None
    """Function that puts everything written so far where other nodes can read it."""
    close: Callable[[], None] = lambda: None
    """Function that does the same as `keep` for the last time and ends the log."""


class Storage(ABC):
    """Defines a place for folders and small files; the object can be sent to any node."""

    poll_s: ClassVar[float]
    """Seconds between two looks at a storage for something that another process will put there."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The address from which `open_storage` makes this storage again."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure that the storage exists and can be written to.

        Raises:
            BadInputError: it cannot be written to.
        """

    @abstractmethod
    def visited(self) -> AbstractContextManager[None]:
        """Remove at the end of a block the empty folders that the block made for this storage.

        A check that only looks at a storage leaves no traces this way.
        """

    @abstractmethod
    def where(self, name: str) -> str:
        """Return where a name lies, for people and for the command line."""

    @abstractmethod
    def uri(self, name: str) -> str:
        """Return where a name lies, as a URI."""

    # -- folders ---------------------------------------------------------------------------

    @abstractmethod
    def writing(self, name: str, *, last: str = "") -> AbstractContextManager[Path]:
        """Give an empty folder whose content is stored under `name` when the block ends.

        Nothing is stored if the block raises an exception.

        Args:
            name: name of the new folder; nothing may be stored under it yet.
            last: name of the file in the folder that is stored after all others, so that its
                presence says that the folder is whole.
        """

    @abstractmethod
    def reading(self, name: str) -> AbstractContextManager[Path | None]:
        """Give a folder of this node with what is stored under `name`; None if nothing is.

        The folder may be deleted when the block ends.
        """

    @abstractmethod
    def obtain(self, name: str, *, marker: str, again: bool = False) -> Path | None:
        """Return a folder of this node with what is stored under `name`; None if nothing is.

        The folder stays, and all processes of the node share it.

        Args:
            name: name of the folder.
            marker: name of the file in the folder that says that it is whole and what it holds.
            again: whether to fetch the folder again because this node's copy was found broken.
        """

    @abstractmethod
    def mirror(self) -> Path:
        """Return a folder of this node with everything in the storage.

        The folder stays, and all processes of the node share it.

        Raises:
            BadInputError: the storage cannot be fetched.
        """

    @abstractmethod
    def set_aside(self, name: str, *, marker: str) -> None:
        """Take away a folder that `obtain` found broken, so that a new one can be stored.

        Args:
            name: name of the folder.
            marker: name of the file in the folder that says that it is whole and what it holds.
        """

    # -- names -----------------------------------------------------------------------------

    @abstractmethod
    def children(self, name: str) -> list[str]:
        """Return the last parts of the names directly below `name`, sorted."""

    @abstractmethod
    def measure(self, name: str) -> tuple[int, float]:
        """Return the bytes of all files below `name`, and when it was made, s since the epoch."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""

    @abstractmethod
    def read(self, name: str, start: int = 0) -> bytes:
        """Return the content of a file from byte `start` on; nothing if there is no such file."""

    @abstractmethod
    def touch(self, name: str) -> None:
        """Make an empty file of this name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete the file or folder of this name, if there is one."""

    # -- claims, scratch and logs ----------------------------------------------------------

    @abstractmethod
    def claim(self, name: str) -> AbstractContextManager[bool]:
        """Hold a claim during a block; give False if another process, on any node, holds it.

        A holder that dies loses its claim after `CLAIM_S` seconds.
        """

    @abstractmethod
    def is_claimed(self, name: str) -> bool:
        """Return whether a living process holds the claim of this name."""

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[tuple[str, Any]]:
        """Give an empty temporary folder that every node sees: its path and pyarrow filesystem.

        Files that a killed process left there are deleted first, and all files at the end.
        """

    @abstractmethod
    def log(self, name: str) -> Log:
        """Begin a log of this process; it follows what other processes logged under the name."""

    @abstractmethod
    def read_log(self, name: str, start: int = 0) -> bytes:
        """Return everything that was logged under a name, from byte `start` on."""
