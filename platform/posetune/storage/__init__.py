"""Where are checkpoints, stage products and logs kept: in a folder that every node sees, or on S3?

`open_storage` turns an address into a `Storage`; nothing else of the platform knows which kind it
is. In a folder, finished files are moved into place and read where they lie; a bucket's files are
uploaded and downloaded.
"""

from __future__ import annotations

from pathlib import Path

from posetune.api import BadInputError
from posetune.storage.base import CLAIM_S, Log, Storage, StorageError
from posetune.storage.folder import Folder

__all__ = ["CLAIM_S", "Folder", "Log", "Storage", "StorageError", "open_folder", "open_storage"]


def open_storage(address: str | Path) -> Storage:
    """Return the storage at an address; nothing is read or written yet.

    Args:
        address: a folder, or `s3://BUCKET[/PREFIX]`.

    Raises:
        BadInputError: the address is of another kind, or holds credentials.
    """
    scheme, separator, _ = str(address).partition("://")
    if not separator:
        return Folder(Path(address).expanduser().absolute())
    if scheme != "s3":
        raise BadInputError(
            f"{scheme}://: is not supported; give a folder that every node sees, or "
            "s3://BUCKET/PREFIX"
        )
    from posetune.storage.bucket import Bucket

    return Bucket.at(str(address))


def open_folder(address: str | Path) -> Path:
    """Return a folder on this node with the data at an address.

    A folder is returned as it is. Data on S3 is copied to this node once, and all processes of the
    node share the copy.

    Args:
        address: a folder, or `s3://BUCKET[/PREFIX]`.

    Raises:
        BadInputError: there is nothing at the address, or it cannot be fetched.
    """
    return open_storage(address).mirror()
