"""Keeps files in a folder: finished folders are moved into place and read where they lie."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from posetune.api import BadInputError
from posetune.storage.base import CLAIM_S, Log, Storage

__all__ = ["Folder"]


@dataclass(frozen=True)
class Folder(Storage):
    """Keeps everything below one folder that every node sees."""

    root: Path
    """Absolute path of the folder."""
    poll_s: ClassVar[float] = 0.2

    @property
    def address(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            BadInputError: the folder cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"{self.root}: cannot be made ({error.strerror})") from error
        if not os.access(self.root, os.W_OK):
            raise BadInputError(f"{self.root}: cannot be written to; give another folder")

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Remove the folder and its parents at the end, as far as the block made them."""
        made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a folder that is not empty stays, with its parents
                for folder in made:
                    folder.rmdir()

    def where(self, name: str) -> str:
        """Return the path."""
        return str(self.root / name)

    def uri(self, name: str) -> str:
        """Return the `file://` address."""
        return (self.root / name).as_uri()

    @contextmanager
    def writing(self, name: str, *, last: str = "") -> Iterator[Path]:
        """Give a folder that lies beside its final place and is renamed at the end."""
        target = self.root / name
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        partial.mkdir(parents=True)
        try:
            yield partial
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        """Give the folder itself."""
        folder = self.root / name
        yield folder if folder.is_dir() else None

    def obtain(self, name: str, *, marker: str, again: bool = False) -> Path | None:
        """Return the folder itself."""
        folder = self.root / name
        return folder if folder.exists() else None

    def mirror(self) -> Path:
        """Return the folder itself."""
        return self.root

    def set_aside(self, name: str, *, marker: str) -> None:
        """Rename the folder, so that its name says that it is broken."""
        folder = self.root / name
        folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.broken"))

    def children(self, name: str) -> list[str]:
        """Return the names in a folder."""
        try:
            return sorted(path.name for path in (self.root / name).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def measure(self, name: str) -> tuple[int, float]:
        """Return the size of all files, and when the folder was made."""
        folder = self.root / name
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        return size, folder.stat().st_mtime

    def exists(self, name: str) -> bool:
        """Return whether the file is there."""
        return (self.root / name).is_file()

    def read(self, name: str, start: int = 0) -> bytes:
        """Return the file's content from byte `start` on."""
        try:
            with (self.root / name).open("rb") as file:
                file.seek(start)
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return b""

    def touch(self, name: str) -> None:
        """Make the file."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def remove(self, name: str) -> None:
        """Delete the file, or what can be deleted of the folder."""
        place = self.root / name
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold a file that only one process can make; touch it to show that this process lives."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _take(path):
            yield False
            return
        released = threading.Event()

        def touch() -> None:
            while not released.wait(CLAIM_S / 6):
                try:
                    os.utime(path)
                except FileNotFoundError:
                    return

        thread = threading.Thread(target=touch, name="claim", daemon=True)
        thread.start()
        try:
            yield True
        finally:
            released.set()
            thread.join()
            path.unlink(missing_ok=True)

    def is_claimed(self, name: str) -> bool:
        """Return whether the file is there and the process that made it lives."""
        path = self.root / name
        return path.exists() and not _is_dead(path)

    @contextmanager
    def scratch(self, name: str) -> Iterator[tuple[str, Any]]:
        """Give a path in this folder; pyarrow finds the filesystem by the path."""
        self.remove(name)
        try:
            yield str(self.root / name), None
        finally:
            self.remove(name)

    def log(self, name: str) -> Log:
        """Return the file itself, since all processes can append to it."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return Log(file)

    def read_log(self, name: str, start: int = 0) -> bytes:
        """Return the log's content from byte `start` on."""
        return self.read(name, start)


def _take(path: Path) -> bool:
    """Make a claim's file; return False if it exists, after taking away that of a dead holder."""
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        if _is_dead(path):
            # Of several processes one renames the dead claim and the others find it gone. It is
            # free at the next attempt.
            try:
                path.rename(path.with_suffix(f".{uuid.uuid4().hex[:8]}.dead"))
            except FileNotFoundError:
                return False
            for left in path.parent.glob(f"{path.stem}.*.dead"):
                left.unlink(missing_ok=True)
        return False
    return True


def _is_dead(path: Path) -> bool:
    """Return whether the process that made a claim's file has ended or has not touched it."""
    try:
        age = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return age > CLAIM_S
    if holder["host"] == socket.gethostname() and not Path(f"/proc/{holder['pid']}").exists():
        return True
    return age > CLAIM_S
