"""Turns a `Corpus` of motions into the `Source` of a store, drawn from several cameras.

Read `draw_corpus` first. What is drawn depends on the seed and the row alone (`seeding`).
Shape letters: n rows, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from posetune.api import BadInputError
from selfpose.data.metadata import SPLITS
from selfpose.data.pictures.foreground import remove_background
from selfpose.data.seeding import generator
from selfpose.data.sources import ImportOptions, Made, Source
from selfpose.data.synthetic.cameras import CAMERAS, Crop, draw_crop
from selfpose.data.synthetic.estimated_masks import (
    MASK_PX,
    PeopleSample,
    estimate_mask,
    reduce_mask,
    sample_people,
)
from selfpose.data.synthetic.motions import Corpus, choose_frames
from selfpose.data.synthetic.rendering import Level, Scene, draw_frame
from selfpose.method.skeleton import Layout

__all__ = ["DrawingJob", "DrawingOptions", "draw_corpus"]


class DrawingOptions(ImportOptions):
    """Holds the options of an import that draws people or hands."""

    views: int = Field(
        4,
        ge=1,
        le=4,
        description="Number of cameras; each frame of a motion gives one image per camera.",
    )
    level: Level = Field(
        "rooms",
        description="How hard the images are, from easy to hard: `plain` colours on black, "
        "`clothes` on one colour, people in `rooms`, and behind `occluders`.",
    )
    masks: Literal["exact", "estimated"] = Field(
        "exact",
        description="How people are told from the background: `exact` by the drawing itself, or "
        "`estimated` by the difference to each camera's median picture, as in photographs; then "
        "a hand's forearm is foreground too.",
    )
    background: Literal["keep", "remove"] = Field(
        "keep",
        description="What becomes of the background: `keep` leaves it, `remove` paints every pixel "
        "black that the foreground mask leaves out.",
    )


@dataclass(frozen=True)
class _Rows:
    """Says for each row of one split what is drawn."""

    motion_n: NDArray[np.int32]
    """Index of the motion, (n,)."""
    position_n: NDArray[np.int64]
    """Position of the frame in its motion, (n,), from 0."""
    camera_n: NDArray[np.int32]
    """Index of the camera, (n,)."""


def draw_corpus(corpus: Corpus, options: DrawingOptions) -> Source:
    """Decide which frames of a corpus are drawn, and return them as a `Source`.

    Args:
        corpus: the motions, placed on the floor of the room.
        options: how to draw.

    Raises:
        BadInputError: a split has no motion.
    """
    plan = {split: _plan(corpus, split, options) for split in SPLITS}
    return Source(
        format=corpus.format,
        layout=corpus.layout,
        licence=corpus.licence,
        digest=corpus.source_digest,
        activities=corpus.activities,
        subjects=corpus.subjects,
        motions=tuple(motion.name for motion in corpus.motions),
        rows={split: len(rows.motion_n) for split, rows in plan.items()},
        job=lambda split, start, end: _job(
            corpus, plan[split], split=split, part=slice(start, end), options=options
        ),
        facts={
            "level": options.level,
            "views": str(options.views),
            **_changed(options, ("masks", "background")),
            **corpus.facts,
        },
        skipped=corpus.skipped,
    )


def _plan(corpus: Corpus, split: str, options: DrawingOptions) -> _Rows:
    """Choose a split's frames and repeat each for every camera."""
    indices = [i for i, motion in enumerate(corpus.motions) if motion.split == split]
    if not indices and not any(skip.split == split for skip in corpus.skipped):
        raise BadInputError(
            f"{corpus.format}: no motion belongs to split {split}; give more motions"
        )
    chosen = choose_frames([len(corpus.motions[i].frame_f) for i in indices], options.limit)
    position_f = np.concatenate([np.empty(0, np.int64), *chosen])
    motion_f = np.repeat(np.asarray(indices, np.int64), [len(frames) for frames in chosen])
    views = options.views
    return _Rows(
        motion_n=np.repeat(motion_f, views).astype(np.int32),
        position_n=np.repeat(position_f, views),
        camera_n=np.tile(np.arange(views, dtype=np.int32), len(motion_f)),
    )


def _job(
    corpus: Corpus, rows: _Rows, *, split: str, part: slice, options: DrawingOptions
) -> DrawingJob:
    """Collect everything that a worker needs to draw some rows of a split."""
    motion_n, position_n = rows.motion_n[part], rows.position_n[part]
    motions = [corpus.motions[i] for i in motion_n]
    pairs = list(zip(motions, position_n.tolist(), strict=True))
    return DrawingJob(
        layout=corpus.layout,
        split=split,
        level=options.level,
        seed=options.seed,
        image_size=options.image_size,
        joints_nj3=np.stack([motion.joints_fj3[at] for motion, at in pairs]),
        motion_names=tuple(motion.name for motion in motions),
        subject_names=tuple(corpus.subjects[motion.subject] for motion in motions),
        columns={
            "activity": np.asarray([motion.activity_f[at] for motion, at in pairs], np.int32),
            "subject": np.asarray([motion.subject for motion in motions], np.int32),
            "motion": motion_n,
            "camera": rows.camera_n[part],
            "frame": np.asarray([motion.frame_f[at] for motion, at in pairs], np.int32),
        },
        enlarged=corpus.enlarged,
        people=_people(corpus, split, options),
        background=options.background,
    )


def _changed(options: DrawingOptions, names: Sequence[str]) -> dict[str, str]:
    """Return the options that do not stand at their defaults: those make another store."""
    given = options.model_dump()
    return {n: str(given[n]) for n in names if given[n] != type(options).model_fields[n].default}


def _people(corpus: Corpus, split: str, options: DrawingOptions) -> PeopleSample | None:
    """Return who tells the backgrounds of a split; None if nothing asks for them."""
    if options.masks == "exact" or split == "prior":
        return None
    return sample_people([m.joints_fj3 for m in corpus.motions if m.split == split])


@dataclass(frozen=True)
class DrawingJob:
    """Draws some rows of one split."""

    layout: Layout
    """Layout of the joints."""
    split: str
    """Name of the split."""
    level: Level
    """How hard the images are."""
    seed: int
    """Seed of the import."""
    image_size: int
    """Side of the images in pixels."""
    joints_nj3: NDArray[np.float32]
    """Joints of each row, (n, J, 3), in mm in world axes, `enlarged` times life size."""
    motion_names: tuple[str, ...]
    """Name of each row's motion."""
    subject_names: tuple[str, ...]
    """Name of each row's subject."""
    columns: Mapping[str, NDArray[Any]]
    """Columns that need no drawing, by name, among them `camera` and `frame`, (n,) each."""
    enlarged: float = 1.0
    """Factor by which the joints are larger than in life."""
    people: PeopleSample | None = None
    """Who stands before the backgrounds from which masks are estimated; None for exact masks."""
    background: Literal["keep", "remove"] = "keep"
    """What becomes of the background."""

    def __call__(self) -> Made:
        """Draw the rows and return them as columns of the store, in the same order."""
        images = self.split != "prior"
        rows = [self._draw_row(i, images=images) for i in range(len(self.joints_nj3))]
        if not images:
            joints_2d = np.stack([row[0] for row in rows])
            return Made({"joints_2d": joints_2d, "motion": self.columns["motion"]})
        joints_2d, joints_3d, pictures, masks = (
            np.stack(parts).reshape(len(rows), -1) for parts in zip(*rows, strict=True)
        )
        return Made(
            {
                "image": pictures,
                "mask": masks,
                "joints_2d": joints_2d,
                "joints_3d": joints_3d,
                **self.columns,
            }
        )

    def _draw_row(self, i: int, *, images: bool) -> tuple[NDArray[Any], ...]:
        """Return the 2D joints of one row; with `images` also its 3D joints, picture and mask.

        The 2D joints are in crop coordinates; the 3D joints in mm in camera axes, in life size.
        """
        number, frame = int(self.columns["camera"][i]), int(self.columns["frame"][i])
        camera, motion = CAMERAS[number], self.motion_names[i]
        joints_j3 = camera.to_camera(self.joints_nj3[i])
        pixels_j2 = camera.project(joints_j3)
        crop = draw_crop(pixels_j2, generator(self.seed, "crop", self.split, motion, frame, number))
        joints_j2 = crop.from_frame(pixels_j2).astype(np.float32)
        if not images:
            return (joints_j2.reshape(-1),)
        scene = Scene(
            level=self.level,
            seed=self.seed,
            group=self.split,
            subject=self.subject_names[i],
            motion=motion,
            camera=number,
        )
        picture, mask = self._draw_picture(joints_j3, scene, crop, frame)
        if self.background == "remove":
            picture = remove_background(picture, mask)
        return joints_j2, (joints_j3 / self.enlarged).astype(np.float32), picture, mask

    def _draw_picture(
        self, joints_j3: NDArray[np.float32], scene: Scene, crop: Crop, frame: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a picture, uint8 (S, S, 3), and its mask, uint8 (S, S)."""

        def draw(size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            key = ("picture", self.split, scene.motion, frame, scene.camera)
            rng = generator(self.seed, *key)
            return draw_frame(joints_j3, self.layout, scene=scene, crop=crop, size=size, rng=rng)

        picture, mask = draw(self.image_size)
        if self.people is None:
            return picture, mask
        large = picture if self.image_size >= MASK_PX else draw(MASK_PX)[0]
        found = estimate_mask(large, crop, scene=scene, layout=self.layout, people=self.people)
        return picture, reduce_mask(found, self.image_size)
