"""Where checkpoints, stage products and logs are kept: a folder that every node sees, or S3.

`open_storage` turns an address into a `Storage`; nothing else of the platform knows which kind it
is. A folder moves what is whole into place and lets it be read where it lies; a bucket is uploaded
to and downloaded from.
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
        BadInputError: it is of another kind, or holds credentials.
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
    """Return a folder of data on this node: the one named, or this node's copy of what is on S3.

    The processes of a node share one copy, which is fetched once.

    Raises:
        BadInputError: there is nothing at the address, or it cannot be fetched.
    """
    return open_storage(address).mirror()
