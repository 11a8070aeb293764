from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from posetune.api import BadInputError
from selfpose import data
from selfpose.data.store import Store


def test_a_contact_sheet_shows_every_split(plain_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "sheet.png"
    data.draw_contact_sheet(plain_store.root, out)
    picture = cv2.imread(str(out))

    assert picture is not None
    height = picture.shape[0] // 4
    for i in range(4):
        assert picture[i * height : (i + 1) * height].std() > 10
    assert [file.name for file in out.parent.iterdir()] == ["sheet.png"]


def test_limbs_of_two_sides_have_two_colours(plain_store: Store, tmp_path: Path) -> None:
    """In the tiles of poses without a picture nothing but the limbs has a colour."""
    data.draw_contact_sheet(plain_store.root, tmp_path / "sheet.png")
    blue, green, red = cv2.imread(str(tmp_path / "sheet.png")).astype(int).transpose(2, 0, 1)

    assert ((red > 200) & (blue < 60) & (green > 80)).sum() > 100
    assert ((blue > 200) & (red < 90)).sum() > 100


def test_a_contact_sheet_that_cannot_be_written_is_named(
    plain_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(BadInputError, match=r"sheet.png: cannot be written"):
        data.draw_contact_sheet(plain_store.root, tmp_path / "file" / "sheet.png")


def test_a_store_is_described_in_words_and_numbers(plain_store: Store) -> None:
    summary = data.describe(plain_store.root)

    assert summary.digest == plain_store.digest
    assert summary.rows == {"train": 40, "prior": 40, "val": 40, "test": 40}
    assert summary.facts["level"] == "plain"
    assert summary.facts["image size"] == "32 px"


def test_the_importers_are_named_and_take_the_shared_options() -> None:
    importers = data.importers()

    assert set(importers) >= {"mocap17", "procedural", "procedural_hand"}
    assert importers["mocap17"].needs_file
    assert importers["mocap17"].options().model_dump()["views"] == 4
    assert importers["procedural"].options().model_dump()["views"] == 1
