from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from posetune.api import BadInputError
from selfpose.data.metadata import Metadata, write_metadata
from selfpose.data.shards import SHARD_ROWS, Shard, write_shard
from selfpose.data.store import Store, open_store
from selfpose.method.skeleton import H36M_17


def _two_shards(root: Path, *, size: int = 8) -> tuple[Store, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    rows = SHARD_ROWS + 10
    columns = {
        "image": rng.integers(0, 256, (rows, size * size * 3), dtype=np.uint8),
        "mask": rng.integers(0, 256, (rows, size * size), dtype=np.uint8),
        "joints_2d": rng.normal(size=(rows, 34)).astype(np.float32),
        "joints_3d": rng.normal(size=(rows, 51)).astype(np.float32),
        "motion": np.arange(rows, dtype=np.int32),
    }
    shards = [
        write_shard(root, f"train/{i:05d}.arrow", {name: c[part] for name, c in columns.items()})
        for i, part in enumerate((slice(0, SHARD_ROWS), slice(SHARD_ROWS, rows)))
    ]
    write_metadata(root, _metadata(size, {"train": tuple(shards)}))
    return open_store(root), columns


def _metadata(size: int, shards: dict[str, tuple[Shard, ...]]) -> Metadata:
    return Metadata(
        format="test",
        layout="h36m17",
        joints=H36M_17.joints,
        limbs=H36M_17.limbs,
        image_size=size,
        activities=("Walking",),
        subjects=("s",),
        motions=tuple(f"m{i}" for i in range(SHARD_ROWS + 10)),
        licence="none",
        seed=0,
        made_from={},
        shards=shards,
    )


def test_a_store_of_before_has_the_lengths_of_its_layout_and_the_digest_it_had(
    tmp_path: Path,
) -> None:
    store, _ = _two_shards(tmp_path)
    record = json.loads((tmp_path / "metadata.json").read_text())

    assert "bone_ratios" not in record
    assert store.bone_ratios == H36M_17.bone_ratios
    write_metadata(tmp_path, store.metadata.model_copy(update={"bone_ratios": (1.0,) * 16}))
    assert open_store(tmp_path).bone_ratios == (1.0,) * 16
    assert open_store(tmp_path).digest != record["digest"]
    write_metadata(tmp_path, store.metadata.model_copy(update={"bone_ratios": (1.0,) * 15}))
    with pytest.raises(BadInputError, match="15 bone ratios of 16 limbs"):
        open_store(tmp_path)


def test_what_is_read_equals_what_was_written_in_any_order_and_across_shards(
    tmp_path: Path,
) -> None:
    store, written = _two_shards(tmp_path)
    split = store.split("train")
    wanted = np.random.default_rng(1).permutation(len(split))[:200]
    wanted[:2] = SHARD_ROWS - 1, SHARD_ROWS

    assert len(split) == SHARD_ROWS + 10
    np.testing.assert_array_equal(
        split.images(wanted), written["image"][wanted].reshape(-1, 8, 8, 3)
    )
    masks = split.masks(wanted)
    assert masks is not None
    np.testing.assert_array_equal(masks, written["mask"][wanted].reshape(-1, 8, 8))
    np.testing.assert_array_equal(split.joints_2d, written["joints_2d"].reshape(-1, 17, 2))
    np.testing.assert_array_equal(split.joints_3d, written["joints_3d"].reshape(-1, 17, 3))
    np.testing.assert_array_equal(split.motion, written["motion"])


def test_pictures_are_read_from_mapped_memory_without_a_copy_of_the_file(tmp_path: Path) -> None:
    store, _ = _two_shards(tmp_path)
    split = store.split("train")
    split.images([0])

    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(tmp_path / "train" / "00000.arrow") in mapped
    assert all(not part.flags.owndata for part in split._parts("image"))


def test_columns_can_be_written_to_without_touching_the_store(plain_store: Store) -> None:
    joints = open_store(plain_store.root).split("val").joints_2d
    joints[:] = np.nan

    assert np.isfinite(open_store(plain_store.root).split("val").joints_2d).all()


def test_the_prior_holds_2d_poses_and_motions_only(plain_store: Store) -> None:
    prior = plain_store.split("prior")

    assert prior.joints_2d.shape == (40, 17, 2)
    assert prior.motion.shape == (40,)
    assert prior.masks([0]) is None
    with pytest.raises(BadInputError, match="prior holds no joints_3d"):
        _ = prior.joints_3d
    with pytest.raises(BadInputError, match="prior holds no image"):
        prior.images([0])


def test_rows_outside_a_split_are_refused(plain_store: Store) -> None:
    with pytest.raises(IndexError, match="0 to 39"):
        plain_store.split("train").images([40])


def test_an_unknown_split_is_named(plain_store: Store) -> None:
    with pytest.raises(BadInputError, match="no split 'training'; there are train, prior"):
        plain_store.split("training")


def test_a_row_without_masks_gives_none(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "val/0.arrow", {"image": np.zeros((2, 192), dtype=np.uint8)})
    write_metadata(tmp_path, _metadata(8, {"val": (shard,)}))

    assert open_store(tmp_path).split("val").masks([0]) is None


def _missing(root: Path) -> str:
    shutil.rmtree(root)
    return "no such store"


def _unfinished(root: Path) -> str:
    root.rename(root.with_name(root.name + ".partial"))
    return "the import is not finished; give the same import command again"


def _empty(root: Path) -> str:
    (root / "metadata.json").unlink()
    return "not a store"


def _garbled(root: Path) -> str:
    (root / "metadata.json").write_text("{", encoding="utf-8")
    return "not the metadata of a store"


def _edited(root: Path) -> str:
    record = json.loads((root / "metadata.json").read_text(encoding="utf-8"))
    record["seed"] = 7
    (root / "metadata.json").write_text(json.dumps(record), encoding="utf-8")
    return "changed since the import"


def _shard_gone(root: Path) -> str:
    (root / "train/00000.arrow").unlink()
    return "00000.arrow: is missing"


def _shard_cut(root: Path) -> str:
    file = root / "train/00000.arrow"
    file.write_bytes(file.read_bytes()[:-100])
    return "bytes instead of"


@pytest.mark.parametrize(
    "damage", [_missing, _unfinished, _empty, _garbled, _edited, _shard_gone, _shard_cut]
)
def test_a_store_that_is_not_whole_is_refused_in_one_line(
    tmp_path: Path, plain_store: Store, damage: Callable[[Path], str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain_store.root, copy)

    expected = damage(copy)
    with pytest.raises(BadInputError) as caught:
        open_store(copy)

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shard_with_scrambled_content_is_named(tmp_path: Path, plain_store: Store) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain_store.root, copy)
    file = copy / "val/00000.arrow"
    file.write_bytes(bytes(file.stat().st_size))

    with pytest.raises(BadInputError, match=r"val/00000\.arrow: damaged"):
        open_store(copy).split("val").images([0])
