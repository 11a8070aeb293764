"""Imports Human3.6M from h36m-fetch's folders or from VideoPose3D's files of poses."""

from __future__ import annotations

from pathlib import Path

from posetune.api import BadInputError, Importer, Progress
from selfpose.data.formats.human36m_images import read_fetch
from selfpose.data.formats.human36m_protocol import Human36MOptions
from selfpose.data.formats.videopose3d import POSES_FILE, read_videopose3d
from selfpose.data.importing import run_import

__all__ = ["IMPORTER"]


def _run(file: Path | None, out: Path, options: Human36MOptions, progress: Progress) -> None:
    if file is None:
        raise BadInputError("the format human36m reads a folder: name it before --format")
    is_poses = file.suffix == ".npz" or (file / POSES_FILE).is_file()
    read = read_videopose3d if is_poses else read_fetch
    source = read(file, options, progress)
    run_import(source, out, options, progress)


IMPORTER = Importer(
    summary="Human3.6M: h36m-fetch's folders, or VideoPose3D's npz files",
    needs_file=True,
    options=Human36MOptions,
    run=_run,
)
