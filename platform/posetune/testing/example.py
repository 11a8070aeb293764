"""Shows the smallest trainable, to start from: it learns one pose that it predicts for every image.

Its store is a folder with `train.npy`, `val.npy` and `test.npy`, float32 (N, 3, 3). Sweep it with
`trainable: posetune.testing.example:OnePose` and `objective: {metric: val/error, mode: min}`.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from pydantic import BaseModel, Field
from safetensors.numpy import load_file, save_file

from posetune import api
from posetune.testing.toy import ToyPredictor

SPLITS = ("train", "val", "test")
STEPS = 20  # of an epoch


class OnePoseConfig(BaseModel, frozen=True, extra="forbid"):
    """Holds the fields that a sweep can search."""

    rate: float = Field(0.1, gt=0, le=2, description="Share of the error that one step removes.")


class OnePose(api.Trainable):
    """Moves its one pose towards poses drawn from the training split."""

    config_model = OnePoseConfig
    reusable = True  # it keeps nothing of a trial outside of `self`
    metrics: ClassVar = {"val/error": api.Metric("1", "min", "Mean distance to the poses of val.")}

    @classmethod
    def importers(cls) -> dict[str, api.Importer]:
        """Return no formats: people write the store's files themselves."""
        return {}

    @classmethod
    def describe_store(cls, store: Path) -> api.StoreSummary:
        """Count the poses of each split; refuse a folder in which a file is missing or damaged."""
        try:
            rows = {split: len(np.load(store / f"{split}.npy")) for split in SPLITS}
        except (OSError, ValueError) as error:
            raise api.BadInputError(f"{store}: {SPLITS} must be .npy files ({error})") from error
        digest = hashlib.sha256(b"".join((store / f"{s}.npy").read_bytes() for s in rows))
        return api.StoreSummary(digest.hexdigest(), rows, {"format": "npy"})

    def start(self, config: OnePoseConfig, context: api.TrialContext) -> None:
        """Read the poses and begin with a pose whose joints are all at zero."""
        self.config, self.context, self.steps = config, context, 0
        self.train, self.val = (np.load(context.store / f"{s}.npy") for s in ("train", "val"))
        self.random = np.random.default_rng(context.seed)
        self.pose = np.zeros((3, 3), np.float32)

    def epoch(self) -> dict[str, float]:
        """Take the steps that are left of this epoch and measure the error on validation."""
        for step in range(self.steps % STEPS, STEPS):
            self.context.progress(step, STEPS)  # it may raise; `save` then writes `self.steps`
            target = self.train[self.random.integers(len(self.train))]
            self.pose += self.config.rate * (target - self.pose)
            self.steps += 1
        return {"val/error": float(np.linalg.norm(self.val - self.pose, axis=-1).mean())}

    def save(self, folder: Path) -> None:
        """Write the pose and the number of steps, in each of which the generator drew once."""
        save_file({"pose": self.pose, "steps": np.array(self.steps)}, folder / "state.safetensors")

    def load(self, folder: Path) -> None:
        """Read the pose, and let a new generator draw as often as the old one had."""
        state = load_file(folder / "state.safetensors")
        self.pose, self.steps = state["pose"], int(state["steps"])
        self.random = np.random.default_rng(self.context.seed)
        self.random.integers(len(self.train), size=self.steps)

    def export(self, folder: Path) -> None:
        """Write the pose, moved so that its root joint is at zero."""
        save_file({"pose": self.pose - self.pose[:1]}, folder / "model.safetensors")

    def draw(self, folder: Path) -> None:
        """Draw the pose as a line through its joints."""
        figure = Figure()
        figure.add_subplot().plot(self.pose[:, 0], -self.pose[:, 1], "o-")
        figure.savefig(folder / "pose.png")

    @classmethod
    def evaluate(
        cls, exported: Path, store: Path, split: str, progress: Any = None
    ) -> api.Evaluation:
        """Measure the mean distance to the poses of a split, with all roots at zero."""
        poses = np.load(store / f"{split}.npy")
        error_n3 = np.linalg.norm(poses - poses[:, :1] - cls.load_model(exported).pose_j3, axis=-1)
        return api.Evaluation({f"{split}/error": float(error_n3.mean())}, {}, {"error": error_n3})

    @classmethod
    def load_model(cls, exported: Path) -> ToyPredictor:
        """Read the pose into a predictor that returns it for every image."""
        return ToyPredictor(load_file(exported / "model.safetensors")["pose"], image_size=8)
