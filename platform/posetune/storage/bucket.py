"""Keeps files on S3, through pyarrow: finished folders are uploaded, needed ones downloaded.

Credentials come from the environment, as the AWS tools find them, and from nowhere else. A folder
counts once its last file is there, or once the study remembers it, so a folder that was uploaded
in part is never read. Data that all processes of a node read (stores, stage products) is fetched
once into a folder of the node, `POSETUNE_CACHE`, of `POSETUNE_CACHE_GB` at most; anything there may
be deleted while no trial runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from posetune.api import BadInputError
from posetune.storage.base import CLAIM_S, Log, Storage, StorageError
from posetune.storage.credentials import check_aws
from posetune.storage.digest import digest_json
from posetune.storage.fetch_progress import saying_how_far
from posetune.storage.node import cache_folder, fetch_once, make_space

__all__ = ["Bucket"]

ATTEMPTS = 9
"""Number of attempts of one request; pyarrow waits longer each time, about 40 s in all."""
FIRST_ATTEMPTS = 2
"""Number of attempts of the request that finds out whether there is a bucket at all. It is low so
that a wrong address is named within seconds."""
AT_ONCE = 8
"""Number of files that are uploaded at the same time."""
GIVE_WAY_S = 2.0
"""Seconds for which the first of several processes that want a claim waits for the others to give
way."""

_ADDRESS = re.compile(r"s3://(?P<path>[a-z0-9][a-z0-9.-]{2,62}(/[^?#@]*)?)")


@dataclass(frozen=True)
class Bucket(Storage):
    """Keeps everything below one prefix of an S3 bucket."""

    path: str
    """The bucket and the prefix: `BUCKET` or `BUCKET/PREFIX`."""
    poll_s: ClassVar[float] = 2.0

    @classmethod
    def at(cls, address: str) -> Bucket:
        """Return the storage at `s3://BUCKET[/PREFIX]`.

        Raises:
            BadInputError: the address has another form, or more in it, such as a key or an
                endpoint.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None:
            shown = "s3://..." if "@" in address else re.split("[?#]", address)[0]
            raise BadInputError(
                f"{shown}: give s3://BUCKET/PREFIX and nothing else; keys and endpoint are read "
                "from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
            )
        return cls(match["path"].rstrip("/"))

    @property
    def address(self) -> str:
        """The address `s3://BUCKET/PREFIX`."""
        return f"s3://{self.path}"

    def prepare(self) -> None:
        """Make sure that the bucket exists and takes a file.

        Raises:
            BadInputError: there is no such bucket, it refuses us, or no server answers.
        """
        check_aws()
        probe = f"{self.path}/.posetune-{uuid.uuid4().hex[:8]}"
        try:
            filesystem = _connect(self.path.partition("/")[0], _endpoint(), FIRST_ATTEMPTS)
            with filesystem.open_output_stream(probe) as file:
                file.write(b"may be deleted")
            filesystem.delete_file(probe)
        except OSError as error:
            raise BadInputError(self._explain(error)) from error

    @contextmanager
    def visited(self) -> Iterator[None]:
        """Delete the empty objects that pyarrow puts in place of folders."""
        parts = self.path.split("/")
        folders = ["/".join(parts[:n]) for n in range(len(parts), 1, -1)]
        quick = _connect(parts[0], _endpoint(), FIRST_ATTEMPTS)
        made: list[str] = []
        with contextlib.suppress(OSError):  # the block meets the same fault and explains it better
            made = [f.path for f in quick.get_file_info(folders) if f.type.name == "NotFound"]
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                for empty in (folder for folder in made if not Bucket(folder)._listed("")):
                    quick.delete_dir(empty)

    def where(self, name: str) -> str:
        """Return the URI."""
        return self.uri(name)

    def uri(self, name: str) -> str:
        """Return `s3://BUCKET/PREFIX/NAME`."""
        return f"s3://{self._key(name)}"

    # -- folders ---------------------------------------------------------------------------

    @contextmanager
    def writing(self, name: str, *, last: str = "") -> Iterator[Path]:
        """Give a temporary folder; upload it at the end, `last` after all others."""
        with tempfile.TemporaryDirectory(prefix="posetune-upload-") as scratch:
            folder = Path(scratch)
            yield folder
            names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            if last:  # a process that died may have left files under this name
                self.remove(name)
            with self._faults(), ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda n: self._put(folder / n, f"{name}/{n}"), set(names) - {last}))
                if last:
                    self._put(folder / last, f"{name}/{last}")

    @contextmanager
    def reading(self, name: str) -> Iterator[Path | None]:
        """Give a temporary folder with a downloaded copy."""
        with tempfile.TemporaryDirectory(prefix="posetune-download-") as scratch:
            folder = Path(scratch) / name.rpartition("/")[2]
            yield folder if self._download(name, folder) else None

    def obtain(self, name: str, *, marker: str, again: bool = False) -> Path | None:
        """Return this node's copy, fetched once for all its processes."""
        copy = self._copy(name, marker)
        if copy is not None:
            if again:
                shutil.rmtree(copy, ignore_errors=True)
            fetch_once(copy, lambda partial: self._fetch(name, partial))
        return copy

    def set_aside(self, name: str, *, marker: str) -> None:
        """Delete the folder and this node's copy."""
        copy = self._copy(name, marker)
        if copy is not None:
            shutil.rmtree(copy, ignore_errors=True)
        self.remove(name)

    def _copy(self, name: str, marker: str) -> Path | None:
        said = self.read(f"{name}/{marker}").decode(errors="replace")
        return cache_folder() / "stages" / digest_json([self.uri(name), said]) if said else None

    def mirror(self) -> Path:
        """Return this node's copy of the whole storage, fetched once for all its processes.

        The copy is named after the listing of the bucket (names, sizes and times), so data that
        was replaced is fetched again.

        Raises:
            BadInputError: there is nothing, the bucket refuses us, or this node has no space.
        """
        try:
            listed = self._listed("")
            if not listed:
                raise BadInputError(
                    f"{self.address}: nothing is stored there; check the spelling of the address"
                )
            copy = cache_folder() / "stores" / digest_json([self.address, sorted(listed.items())])
            fetch_once(copy, lambda partial: self._fetch("", partial))
        except StorageError as error:
            raise BadInputError(str(error)) from error
        except OSError as error:
            raise BadInputError(
                f"{self.address}: cannot be fetched to {cache_folder()} ({error}); make space, or "
                "name another folder of this node in POSETUNE_CACHE"
            ) from error
        return copy

    def _fetch(self, name: str, folder: Path) -> None:
        """Download a folder into one of this node's cache."""
        size, _ = self.measure(name)
        make_space(size)
        with saying_how_far(folder, self.uri(name), size):
            self._download(name, folder)

    def _download(self, name: str, folder: Path) -> bool:
        """Download a folder; False if there is none."""
        from pyarrow import fs

        if not self._listed(name):
            return False
        folder.mkdir(exist_ok=True)
        with self._faults():
            fs.copy_files(
                self._key(name),
                str(folder),
                source_filesystem=self._filesystem,
                destination_filesystem=fs.LocalFileSystem(),
            )
        return True

    # -- names -----------------------------------------------------------------------------

    def children(self, name: str) -> list[str]:
        """Return what is listed one level below."""
        from pyarrow import fs

        selector = fs.FileSelector(self._key(name), allow_not_found=True)
        with self._faults():
            return sorted(found.base_name for found in self._filesystem.get_file_info(selector))

    def measure(self, name: str) -> tuple[int, float]:
        """Return the size of all files, and the time of the newest."""
        listed = self._listed(name).values()
        newest = max((at for _, at in listed), default=0)
        return sum(size for size, _ in listed), newest / 1e9

    def exists(self, name: str) -> bool:
        """Return whether the file is there."""
        with self._faults():
            return bool(self._filesystem.get_file_info(self._key(name)).is_file)

    def read(self, name: str, start: int = 0) -> bytes:
        """Return the file's content from byte `start` on."""
        try:
            with self._faults(), self._filesystem.open_input_stream(self._key(name)) as file:
                return bytes(file.read()[start:])
        except FileNotFoundError:
            return b""

    def touch(self, name: str) -> None:
        """Put an empty file; if there is one, its time is renewed."""
        with self._faults(), self._filesystem.open_output_stream(self._key(name)):
            pass

    def remove(self, name: str) -> None:
        """Delete the file, or all files of the folder."""
        key = self._key(name)
        with self._faults(), contextlib.suppress(FileNotFoundError):
            if self._filesystem.get_file_info(key).is_file:
                self._filesystem.delete_file(key)
            else:
                self._filesystem.delete_dir(key)

    def _listed(self, name: str) -> dict[str, tuple[int, int]]:
        """Return size and time (ns) of all files below a name."""
        from pyarrow import fs

        key = self._key(name)
        selector = fs.FileSelector(key, allow_not_found=True, recursive=True)
        with self._faults():
            found = self._filesystem.get_file_info(selector)
        return {f.path[len(key) + 1 :]: (f.size, f.mtime_ns) for f in found if f.is_file}

    # -- claims, scratch and logs ----------------------------------------------------------

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold a claim by having the only ticket below its name.

        pyarrow offers no conditional put. But S3 lists everything that was put before, so of two
        processes that first put a ticket and then list the tickets, at least one sees the other's;
        a process that sees another's ticket does not hold the claim. If several try at once, the
        one whose ticket is first by name waits until the others have taken theirs back.
        """
        if self.is_claimed(name):
            yield False
            return
        ticket = f"{name}/{uuid.uuid4().hex}"
        self.touch(ticket)
        released = threading.Event()
        try:
            if not self._is_alone(name, ticket.rpartition("/")[2]):
                yield False
                return
            threading.Thread(
                target=self._keep_alive, args=(ticket, released), name="claim", daemon=True
            ).start()
            yield True
        finally:
            released.set()
            self.remove(ticket)

    def _keep_alive(self, ticket: str, released: threading.Event) -> None:
        while not released.wait(CLAIM_S / 6):
            with contextlib.suppress(StorageError):
                self.touch(ticket)

    def _is_alone(self, name: str, ours: str) -> bool:
        deadline = time.monotonic() + GIVE_WAY_S
        while True:
            tickets = {ticket: at for ticket, (_, at) in self._listed(name).items()}
            now = tickets.get(ours, 0)  # by the bucket's clock, since ours may differ from it
            dead = [t for t, at in tickets.items() if now - at > CLAIM_S * 1e9]
            for ticket in dead:
                self.remove(f"{name}/{ticket}")
            others = tickets.keys() - {ours, *dead}
            if not others:
                return ours in tickets
            if min(others) < ours or time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def is_claimed(self, name: str) -> bool:
        """Return whether there is a ticket that was renewed lately."""
        alive = time.time() - CLAIM_S
        return any(at / 1e9 > alive for _, at in self._listed(name).values())

    @contextmanager
    def scratch(self, name: str) -> Iterator[tuple[str, Any]]:
        """Give a path in this bucket and the bucket's filesystem."""
        self.remove(name)
        try:
            yield self._key(name), self._filesystem
        finally:
            with contextlib.suppress(StorageError):
                self.remove(name)

    def log(self, name: str) -> Log:
        """Begin a file of this process, which is uploaded beside those of other processes."""
        handle, path = tempfile.mkstemp(prefix="posetune-", suffix=".log")
        os.close(handle)
        file = Path(path)
        mine = f"{name}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        kept = (0, 0)

        def keep() -> None:
            nonlocal kept
            found = file.stat()
            now = (found.st_size, found.st_mtime_ns)  # a log that was cut is smaller than before
            if found.st_size and now != kept:
                with contextlib.suppress(StorageError), self._faults():
                    self._put(file, mine)
                    kept = now

        def close() -> None:
            keep()
            file.unlink(missing_ok=True)

        return Log(file, keep, close)

    def read_log(self, name: str, start: int = 0) -> bytes:
        """Return what all processes have written, in the order in which they began."""
        parts = [self.read(f"{name}/{child}") for child in self.children(name)]
        return b"".join(parts)[start:]

    # -- inside ----------------------------------------------------------------------------

    @property
    def _filesystem(self) -> Any:
        return _connect(self.path.partition("/")[0], _endpoint(), ATTEMPTS)

    def _key(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def _put(self, file: Path, name: str) -> None:
        # A `with` block would put a part of the file when reading the file fails.
        out = self._filesystem.open_output_stream(self._key(name))
        with file.open("rb") as source:
            shutil.copyfileobj(source, out, 8 * 1024**2)
        out.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn pyarrow's errors in a block into ours, which say what to do."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(self._explain(error)) from error

    def _explain(self, error: OSError) -> str:
        said = " ".join(str(error).split())
        place = f"{self.address} at {_endpoint() or 'AWS'}"
        if error.errno == errno.ENOSPC or "No space left" in said:
            return f"{self.address}: no space left on this node for a copy, at {cache_folder()}"
        if "NO_SUCH_BUCKET" in said:
            return f"{place}: there is no such bucket; make it, or name another"
        if re.search(r"ACCESS_DENIED|INVALID_|SIGNATURE|HTTP status 40[13]|EXPIRED", said):
            return (
                f"{place}: refuses us ({said[:200]}); give credentials that may read and write it, "
                "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role of the node"
            )
        return f"{place}: does not answer as it should ({said[:300]})"


def _endpoint() -> str | None:
    """Return the address of a server that is not AWS's own, as AWS's tools find it.

    pyarrow does not read these variables by itself.
    """
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@functools.cache
def _connect(bucket: str, endpoint: str | None, attempts: int) -> Any:
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        allow_delayed_open=True,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )
