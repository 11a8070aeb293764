"""Follows what a sweep file says of sharing a cluster, while the sweep runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from posetune.api import BadInputError
from posetune.spec.documents import read_document
from posetune.spec.sweep import ClusterRules

__all__ = ["FollowedRules"]


class FollowedRules:
    """Gives the section `cluster` of a sweep file as it stands now.

    A file that was not touched costs a look at its time. One that is gone or wrong for the moment,
    because somebody is about to write it, changes nothing.
    """

    def __init__(self, file: Path, rules: ClusterRules) -> None:
        """Follow a file.

        Args:
            file: the sweep file.
            rules: what it says at first.
        """
        self._file, self._rules = file.absolute(), rules
        self._seen = self._stamp()

    def __call__(self) -> ClusterRules:
        """Return the rules of now."""
        stamp = self._stamp()
        if stamp not in (None, self._seen):
            self._seen = stamp
            self._rules = self._read()
        return self._rules

    def _read(self) -> ClusterRules:
        try:
            content = read_document(self._file).content
            return ClusterRules.model_validate(content.get("cluster") or {})
        except (BadInputError, ValidationError, OSError):
            return self._rules

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size
