"""Gives the driver of a cluster job a working directory of its own.

Ray unpacks what a job was sent with into a folder of its session and lets the job run there. Nodes
that were started on one machine share that session, and the second one's agent deletes the folder
under the running job; Tune asks for its working directory at the end of a sweep.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posetune.provenance import CODE_FILE

__all__ = ["own_folder"]


@contextmanager
def own_folder() -> Iterator[None]:
    """Work in an empty folder for a block, in a job; elsewhere the working directory stays.

    Everything that is named by a relative path, such as the sweep file, has to be read before.
    """
    if CODE_FILE not in os.environ:
        yield
        return
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="posetune-job-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir("/")
            with contextlib.suppress(FileNotFoundError):
                os.chdir(before)
