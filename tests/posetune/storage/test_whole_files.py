"""Files that are written whole or not at all, by the platform and by the model alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.killed_writer import NEW, kill_within_a_write

from posetune.storage import whole_files as of_platform
from selfpose import whole_files as of_model


@pytest.fixture(params=[of_platform, of_model], ids=["platform", "model"])
def helper(request: pytest.FixtureRequest) -> Any:
    """A module that writes files whole; a trainable sees nothing of the platform but its api."""
    return request.param


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    file = tmp_path / "record.json"
    file.write_text("old", encoding="utf-8")
    return file


def test_a_writer_that_is_killed_leaves_the_old_file_and_hinders_nobody(
    helper: Any, file: Path
) -> None:
    kill_within_a_write(helper.__name__, file)
    assert file.read_text(encoding="utf-8") == "old"
    assert len(list(file.parent.iterdir())) == 2, "the writer was killed before it wrote"
    helper.write_whole(file, NEW)
    assert file.read_text(encoding="utf-8") == NEW
    assert list(file.parent.iterdir()) == [file]


def test_a_writer_that_fails_leaves_the_old_file_alone(helper: Any, file: Path) -> None:
    def fail_halfway() -> None:
        with helper.writing_whole(file) as partial:
            partial.write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert file.read_text(encoding="utf-8") == "old"
    assert list(file.parent.iterdir()) == [file]


def test_nothing_is_left_of_a_killed_writer_where_the_next_one_writes(
    helper: Any, file: Path
) -> None:
    kill_within_a_write(helper.__name__, file)
    with helper.writing_whole(file) as partial:
        assert not partial.exists()
        partial.write_bytes(b"new")
    assert file.read_bytes() == b"new"


@pytest.mark.parametrize("content", ["ümlaut\n", b"\xff\x00"])
def test_text_and_bytes_are_written_as_they_are(
    helper: Any, file: Path, content: str | bytes
) -> None:
    helper.write_whole(file, content)
    assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
