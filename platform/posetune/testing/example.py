"""The smallest trainable, to start from: one pose for every image, learned from a file of poses.

Its store is a folder with `train.npy` and `val.npy`, float32 (N, 3, 3). Sweep it with
`trainable: posetune.testing.example:OnePose` and `objective: {metric: val/error, mode: min}`.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from pydantic import BaseModel, Field
from safetensors.numpy import load_file, save_file

from posetune.api import BadInputError, Importer, Metric, StoreSummary, Trainable, TrialContext
from posetune.testing.toy import ToyPredictor

STEPS = 20


class OnePoseConfig(BaseModel, frozen=True, extra="forbid"):
    """What can be searched."""

    rate: float = Field(0.1, gt=0, le=2, description="Share of the error mended in a step.")


class OnePose(Trainable):
    """Moves its one pose towards poses drawn from the training split."""

    config_model = OnePoseConfig
    metrics: ClassVar = {"val/error": Metric("1", "min", "Mean distance to the poses of val.")}

    @classmethod
    def importers(cls) -> dict[str, Importer]:
        """No data formats of its own."""
        return {}

    @classmethod
    def describe_store(cls, store: Path) -> StoreSummary:
        """Count the poses."""
        try:
            rows = {split: len(np.load(store / f"{split}.npy")) for split in ("train", "val")}
        except (OSError, ValueError) as error:
            raise BadInputError(f"{store}: needs train.npy and val.npy ({error})") from error
        digest = hashlib.sha256(b"".join((store / f"{s}.npy").read_bytes() for s in rows))
        return StoreSummary(digest.hexdigest(), rows, {"format": "npy"})

    def start(self, config: OnePoseConfig, context: TrialContext) -> None:
        """Begin at zero."""
        self.config, self.context, self.steps = config, context, 0
        self.train, self.val = (np.load(context.store / f"{s}.npy") for s in ("train", "val"))
        self.random = np.random.default_rng(context.seed)
        self.pose = np.zeros((3, 3), np.float32)

    def epoch(self) -> dict[str, float]:
        """Take what is left of twenty steps."""
        for step in range(self.steps % STEPS, STEPS):
            self.context.progress(step, STEPS)  # may raise; `save` holds the place
            target = self.train[self.random.integers(len(self.train))]
            self.pose += self.config.rate * (target - self.pose)
            self.steps += 1
        return {"val/error": float(np.linalg.norm(self.val - self.pose, axis=-1).mean())}

    def save(self, folder: Path) -> None:
        """Write the pose and how often the generator has drawn, once a step."""
        save_file({"pose": self.pose, "steps": np.array(self.steps)}, folder / "state.safetensors")

    def load(self, folder: Path) -> None:
        """Go on from there."""
        state = load_file(folder / "state.safetensors")
        self.pose, self.steps = state["pose"], int(state["steps"])
        self.random = np.random.default_rng(self.context.seed)
        self.random.integers(len(self.train), size=self.steps)

    def export(self, folder: Path) -> None:
        """Write the pose, its root at zero."""
        save_file({"pose": self.pose - self.pose[:1]}, folder / "model.safetensors")

    def draw(self, folder: Path) -> None:
        """Draw the pose."""
        figure = Figure()
        figure.add_subplot().plot(self.pose[:, 0], -self.pose[:, 1], "o-")
        figure.savefig(folder / "pose.png")

    @classmethod
    def evaluate(cls, exported: Path, store: Path, split: str, progress: Any = None) -> Any:
        """Refuse: nothing is known beyond val/error."""
        raise BadInputError(f"{exported}: OnePose has nothing to evaluate beyond val/error")

    @classmethod
    def load_model(cls, exported: Path) -> ToyPredictor:
        """Read the pose."""
        return ToyPredictor(load_file(exported / "model.safetensors")["pose"], image_size=8)
