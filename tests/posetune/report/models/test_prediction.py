"""Poses of any pictures."""

from __future__ import annotations

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.browser import Browser
from support.page_checks import faint_texts, nameless_controls

from posetune.api import BadInputError
from posetune.report.models.frames import frames_of, read_boxes
from posetune.report.models.prediction import PictureCrop, find_pictures, predict_pictures


class Seeing:
    """Answers with the mean colour of each image's quarters, so that a test knows what it saw."""

    image_size = 8
    joint_names = ("root", "left_hand", "right_hand")
    limbs = ((1, 0), (2, 0))

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += list(images)
        poses = np.zeros((len(images), 3, 3), np.float32)
        poses[:, 1] = images.reshape(len(images), -1, 3).mean(axis=1) / 255
        return poses


def picture(file: Path, width: int, height: int) -> Path:
    """Red on the left half, blue on the right, as RGB says it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 255
    image[:, width // 2 :, 2] = 255
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file), image[:, :, ::-1])
    return file


def test_it_writes_poses_and_drawings_and_counts_what_is_no_picture(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 16, 16)
    picture(tmp_path / "in" / "deep" / "a.JPG", 40, 20)
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:40])
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    files = find_pictures([tmp_path / "in"])
    assert len(files) == 4
    predictor, told = Seeing(), []
    done = predict_pictures(
        files,
        predictor,
        tmp_path / "out",
        crop=PictureCrop(),
        progress=lambda n, total, note="": told.append((n, total)),
    )
    assert [Path(p["file"]).name for p in done.poses] == ["a.png", "a.JPG"]
    assert {Path(s["file"]).name for s in done.skipped} == {"empty.png", "cut.png"}
    assert told[-1][1] == 4
    written = json.loads((tmp_path / "out" / "poses.json").read_text())
    arrays = np.load(tmp_path / "out" / "poses.npz")
    np.testing.assert_allclose([p["joints"] for p in written["poses"]], arrays["poses"], rtol=1e-6)
    assert list(arrays["joint_names"]) == list(predictor.joint_names)
    assert written["poses"][1]["crop"] == [10, 0, 20]
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"poses.json", "poses.npz", "viewer.html", "00001-a.png", "00002-a.png"}
    drawing = cv2.imread(str(tmp_path / "out" / "00001-a.png"))
    assert drawing is not None
    assert drawing.shape[1] > 4 * drawing.shape[0] * 0.8


@pytest.mark.parametrize(
    ("crop", "size", "square", "mean"),
    [
        ("center", (40, 20), (10, 0, 20), (0.5, 0, 0.5)),
        ("pad", (40, 20), (0, -10, 40), (0.5, 0, 0.5)),
        ("0,0,20", (40, 20), (0, 0, 20), (1, 0, 0)),
        ("20,0,20", (40, 20), (20, 0, 20), (0, 0, 1)),
        ("30,10,20", (40, 20), (30, 10, 20), (0, 0, 1)),
        ("center", (4, 4), (0, 0, 4), (0.5, 0, 0.5)),
    ],
)
def test_the_model_sees_the_square_that_was_asked_for_in_rgb(
    tmp_path: Path, crop: str, size: tuple[int, int], square: tuple[int, int, int], mean: object
) -> None:
    file = picture(tmp_path / "a.png", *size)
    predictor = Seeing()
    done = predict_pictures([file], predictor, tmp_path, crop=PictureCrop.parse(crop), draw=False)
    assert done.poses[0]["crop"] == list(square)
    np.testing.assert_allclose(done.poses[0]["joints"][1], mean, atol=0.06)
    assert predictor.seen[0].shape == (8, 8, 3)


@pytest.mark.parametrize("text", ["", "middle", "1,2", "1,2,0", "a,b,c", "-1,0,5"])
def test_a_crop_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="--crop"):
        PictureCrop.parse(text)


def test_a_crop_outside_every_picture_is_named(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png", 16, 16)
    with pytest.raises(BadInputError, match=r"none of 1 files .* lies outside its 16x16 pixels"):
        predict_pictures([file], Seeing(), tmp_path / "out", crop=PictureCrop.parse("99,0,9"))
    assert list((tmp_path / "out").iterdir()) == []


def test_no_picture_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no picture in"):
        find_pictures([tmp_path])
    with pytest.raises(BadInputError, match="no such file or folder"):
        find_pictures([tmp_path / "none"])


def png_header(width: int, height: int) -> bytes:
    """A PNG file of one colour that says how large it is, with hardly any data."""
    rows = zlib.compress(b"\0" * (1 + width // 8) * min(height, 10))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", rows)]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("width", "height", "crop", "said"),
    [
        (60_000, 1, "pad", r"the square of --crop pad has 60000x60000 px, more than 100 million"),
        (8, 8, "0,0,60000", r"the square of --crop box has 60000x60000 px"),
        (60_000, 60_000, "center", "its picture has (more than|60000x60000 px)"),
    ],
)
def test_a_small_file_that_asks_for_much_memory_is_refused_by_its_header(
    tmp_path: Path, width: int, height: int, crop: str, said: str
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(width, height))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match=rf"none of 1 files is a picture: .*{said}"):
        predict_pictures(
            [tmp_path / "bomb.png"], Seeing(), tmp_path / "out", crop=PictureCrop.parse(crop)
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 300_000  # KB


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadInputError, match=r"pipe.png: is a pipe or a device, not a file"):
        find_pictures([tmp_path / "pipe.png"])
    with pytest.raises(BadInputError, match="no picture in"):
        find_pictures([tmp_path])


def test_a_model_that_answers_with_nan_is_refused(tmp_path: Path) -> None:
    class Damaged(Seeing):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return super().__call__(images) * np.float32(np.nan)

    file = picture(tmp_path / "a.png", 16, 16)
    with pytest.raises(BadInputError, match="its weights are damaged"):
        predict_pictures([file], Damaged(), tmp_path / "out", crop=PictureCrop())


def video(file: Path, frames: int) -> Path:
    """Frame i is red of brightness 2 i, modulo 256, on the left, and blue on the right."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 32))
    assert writer.isOpened()
    for i in range(frames):
        image = np.zeros((32, 64, 3), np.uint8)
        image[:, :32, 2] = 2 * i % 256
        image[:, 32:, 0] = 255
        writer.write(image)
    writer.release()
    return file


def test_every_third_frame_of_a_video_with_the_boxes_of_a_csv(tmp_path: Path) -> None:
    file = video(tmp_path / "walk.avi", 100)
    rows = [f"walk.avi,0,0,32,32,{i}" for i in range(0, 99, 3)]
    (tmp_path / "boxes.csv").write_text(
        "\n".join(["file,x,y,width,height,frame", *rows, "walk.avi,32,8,32,16,0"])
    )
    boxes = read_boxes(tmp_path / "boxes.csv")
    done = predict_pictures(
        [file], Seeing(), tmp_path / "out", crop=PictureCrop(), boxes=boxes, every=3, draw=False
    )
    assert done.skipped == [
        {"file": f"{file}, frame 99", "reason": f"has no box in {boxes.source}"}
    ]
    assert [p["frame"] for p in done.poses] == [0, 0, *range(3, 99, 3)]
    _, second, *others = done.poses
    assert second["crop"] == [32, 0, 32], "the square about the box"
    assert second["joints"][1][2] > 0.9
    for pose in others:
        assert pose["joints"][1][0] == pytest.approx(2 * pose["frame"] / 255, abs=0.03)
        assert pose["joints"][1][2] < 0.1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,x,y,width\na,1,2,3\n", "has no column height"),
        ("file,x,y,width,height\n", "has no row"),
        ("file,x,y,width,height\na,1,2,3,wide\n", "line 2: a,1,2,3,wide are no numbers"),
        ("file,x,y,width,height\na,1,2,1e308,1e308\n", "line 2: a,1,2,1e308,1e308 are no numbers"),
        ("file,x,y,width,height\na,-1e15,2,8,8\n", "line 2: a,-1e15,2,8,8 are no numbers"),
        ("file,x,y,width,height\na,1,2,0,5\n", "line 2: width 0 and height 5 must be above 0"),
    ],
)
def test_boxes_that_are_none_are_refused_with_their_line(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(BadInputError, match=says):
        read_boxes(tmp_path / "boxes.csv")


def test_a_damaged_video_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    picture(tmp_path / "a.png", 16, 16)
    done = predict_pictures(
        find_pictures([tmp_path]), Seeing(), tmp_path / "out", crop=PictureCrop(), draw=False
    )
    (skipped,) = done.skipped
    assert "is not a video that can be read" in skipped["reason"]


@pytest.mark.parametrize("kind", ["m3u8", "concat"])
def test_a_list_of_other_videos_is_not_followed(tmp_path: Path, kind: str) -> None:
    other = video(tmp_path / "other.avi", 3)
    lists = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other.name}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {other.name}\n",
    }
    (tmp_path / "list.mp4").write_text(lists[kind])
    with pytest.raises(BadInputError, match="is a list of other files, not a video"):
        list(frames_of(tmp_path / "list.mp4"))


def test_boxes_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "boxes.csv")
    with pytest.raises(BadInputError, match="is a pipe or a device"):
        read_boxes(tmp_path / "boxes.csv")


@pytest.mark.slow
def test_the_viewer_shows_at_most_two_hundred_poses_that_turn(
    tmp_path: Path, browser: Browser
) -> None:
    file = video(tmp_path / "walk.avi", 450)
    done = predict_pictures([file], Seeing(), tmp_path, crop=PictureCrop(), draw=False)
    assert len(done.poses) == 450
    page = tmp_path / "viewer.html"
    assert page.stat().st_size < 1_000_000
    assert "200 of 450 poses" in page.read_text()
    place = "+document.documentElement.dataset.place"
    for width, dark in ((360, True), (1440, False)):
        with browser.open(page.as_uri(), width=width, dark=dark) as opened:
            opened.wait_until(f"{place} >= 0 && document.getElementById('seen').naturalWidth === 8")
            assert opened.evaluate("document.documentElement.scrollWidth") <= width
            assert faint_texts(opened) == []
            assert nameless_controls(opened) == []
            opened.evaluate("document.getElementById('play').click()")
            before = opened.evaluate(place)
            opened.press("ArrowRight")
            assert opened.evaluate(place) == (before + 1) % 200
            picture = "document.getElementById('pose').toDataURL()"
            opened.evaluate(f"window.before = {picture}")
            opened.wait_until(f"{picture} !== window.before")
