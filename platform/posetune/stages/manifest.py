"""Tells whether a stored folder is whole: files/, and beside it product.json with their digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posetune.storage.digest import digest_folder

__all__ = ["FILES", "MANIFEST", "is_intact", "write_manifest"]

MANIFEST = "product.json"
FILES = "files"


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write the digest of a folder's files, and facts (JSON values) beside it."""
    manifest = {**facts, "digest": digest_folder(folder / FILES)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def is_intact(folder: Path) -> bool:
    """Return whether a folder has a manifest, and the files are those that it was written for."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["digest"] == digest_folder(folder / FILES))
    except (OSError, ValueError, KeyError, TypeError):
        return False
