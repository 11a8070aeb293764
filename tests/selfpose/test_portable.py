"""The model as one program."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from posetune.api import BadInputError
from selfpose.config import SelfPoseConfig
from selfpose.inference import build_model, export_model, load_model
from selfpose.method.skeleton import H36M_17
from selfpose.portable import export_graph


def exported(folder: Path, **fields: object) -> Path:
    config = SelfPoseConfig.model_validate({"image_size": 32, "width": 4, **fields})
    torch.manual_seed(0)
    folder.mkdir()
    export_model(build_model(config, H36M_17, h=0.5), config, folder)
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_the_program_runs_without_our_code_and_gives_the_models_poses(tmp_path: Path) -> None:
    model = exported(tmp_path / "model", keypoint={"map_px": 8})
    assert export_graph(model, tmp_path / "pose.pt2") < 1e-5
    assert {p.name for p in tmp_path.iterdir()} == {"model", "pose.pt2"}
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (  # on as many threads as this process: sums in another order differ by 1e-5
        "import sys, torch, numpy as np\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "program = torch.export.load('pose.pt2').module()\n"
        "np.save('poses.npy', program(torch.from_numpy(np.load('images.npy'))).detach())\n"
        "sys.exit('selfpose' in sys.modules or 'posetune' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    expected = load_model(model)(images)
    np.testing.assert_allclose(np.load(tmp_path / "poses.npy"), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
def test_onnx_gives_the_models_poses_without_our_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 0.1 mm for a person whose mean limb has 300 mm, whatever the number of images."""
    model = exported(tmp_path / "model", keypoint={"map_px": 8})
    # torch's loggers print for themselves and tell the root nothing
    monkeypatch.setattr(logging.getLogger("torch.onnx"), "handlers", [caplog.handler])
    assert export_graph(model, tmp_path / "pose.onnx") < 1e-4
    assert [record for record in caplog.records if record.name.startswith("torch.onnx")] == []
    assert {p.name for p in tmp_path.iterdir()} == {"model", "pose.onnx"}, "the weights are inside"
    code = (
        "import sys, numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('pose.onnx')\n"
        "for count in (1, 7, 64):\n"
        "    images = np.load(f'images{count}.npy')\n"
        "    np.save(f'poses{count}.npy', session.run(['poses'], {'images': images})[0])\n"
        "sys.exit('torch' in sys.modules or 'posetune' in sys.modules)\n"
    )
    draw = np.random.default_rng(1)
    for count in (1, 7, 64):
        images = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / f"images{count}.npy", images)
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
    for count in (1, 7, 64):
        expected = load_model(model)(np.load(tmp_path / f"images{count}.npy"))
        found = np.load(tmp_path / f"poses{count}.npy")
        np.testing.assert_allclose(300 * found, 300 * expected, atol=0.1)


def test_without_the_packages_onnx_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exported(tmp_path / "model", keypoint={"map_px": 8})
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as Python marks what is not there
    with pytest.raises(BadInputError, match=r"needs the package onnxscript; install posetune\[onn"):
        export_graph(model, tmp_path / "pose.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


def test_a_model_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    model = exported(tmp_path / "model", mode="lifting", keypoint={"map_px": 8})
    with pytest.raises(BadInputError, match="takes no images"):
        export_graph(model, tmp_path / "pose.pt2")
    assert {p.name for p in tmp_path.iterdir()} == {"model"}
