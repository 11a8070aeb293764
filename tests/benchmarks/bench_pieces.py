"""The hot pieces of a trial against their plain twins and the usual libraries, one thread each."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import FrEIA.framework
import FrEIA.modules
import h5py
import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from torch import Tensor, nn

from posetune.api import TrialContext, silent
from posetune.spec.loading import configure, default_params, load_sweep
from posetune.testing.stages import build_stages
from selfpose.config import SelfPoseConfig
from selfpose.data.pictures.images import ImageFeed
from selfpose.data.store import open_store
from selfpose.method.flow import NormalisingFlow
from selfpose.method.procrustes import procrustes_align
from selfpose.method.renderer import draw_skeletons
from selfpose.method.skeleton import H36M_17
from selfpose.trainable import SelfPose
from selfpose.training.modes.complete import CompleteMode
from selfpose.training.reference import ReferenceTraining, draw_plainly
from selfpose.training.trial import Trial

PEN = {"sigma": 0.2, "profile": "distance", "brightness": (1.0,) * len(H36M_17.limbs)}
CPU = torch.device("cpu")
BATCHES = 10

Medians = Callable[..., tuple[float, float]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As a trial with one core has it; a sweep fills the others with more trials."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 training images of 128 px."""
    out = tmp_path_factory.mktemp("stores") / "rooms"
    importer = SelfPose.importers()["procedural"]
    options = importer.options(image_size=128, level="rooms", limit=2000)
    importer.run(None, out, options, silent)
    return out


def test_training_step(
    medians: Medians, measured: Any, store: Path, repository: Path, tmp_path: Path
) -> None:
    file = repository / "search_spaces" / "selfpose" / "quickstart.yaml"
    spec, trainable, _ = load_sweep(file)
    short = {**spec.fixed, "pretrain_bodies": 2, "pretrain_pairs": 2, "flow.steps": 2}
    config = configure(SelfPoseConfig, short, default_params(spec, trainable.config_model))
    assert isinstance(config, SelfPoseConfig)
    products = build_stages(SelfPose.stages(config, store), tmp_path)
    context = TrialContext(store=store, seed=0, work=tmp_path, products=products)
    trial = Trial(config.model_copy(update={"steps_per_epoch": 10}), context)
    plain = ReferenceTraining(trial)
    ours, rival = medians(
        lambda: trial.train(silent), lambda: [plain.step() for _ in range(10)], clock=process_time
    )
    assert isinstance(trial.mode, CompleteMode)
    feed = trial.mode.feed
    picks = itertools.cycle(torch.randint(len(feed), (1000, config.batch_size)))
    fetching = timeit.timeit(lambda: feed.fetch(next(picks)), timer=process_time, number=1000)
    fetching /= 1000
    share = f"its images take {fetching / (ours / 10):.2%} of it (aim: under 1 %)"
    measured.add("step", ours / 10, rival / 10, share)


@pytest.mark.parametrize(
    ("key", "batch", "side"), [("renderer", 96, 128), ("renderer-small", 32, 32)]
)
def test_renderer(medians: Medians, measured: Any, key: str, batch: int, side: int) -> None:
    joints = torch.rand((batch, 17, 2), generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8

    def step(draw: Callable[..., Tensor]) -> None:
        given = joints.clone().requires_grad_()
        draw(given, H36M_17.limbs, image_size=side, **PEN).square().sum().backward()

    measured.add(
        key, *medians(lambda: step(draw_skeletons), lambda: step(draw_plainly), clock=process_time)
    )


def freia_of(flow: NormalisingFlow) -> nn.Module:
    """FrEIA's blocks with the weights of `flow`."""
    theirs = FrEIA.framework.SequenceINN(flow.dimensions)
    for block in flow.blocks:
        theirs.append(FrEIA.modules.PermuteRandom)
        theirs.append(
            FrEIA.modules.AffineCouplingOneSided,
            subnet_constructor=lambda inputs, outputs, block=block: block.net,
            clamp=2.0,
            clamp_activation="TANH",
        )
    for permutation, block in zip(theirs.module_list[::2], flow.blocks, strict=True):
        permutation.perm.data.copy_(block.permutation)
    return theirs.requires_grad_(False)


def test_flow(medians: Medians, measured: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    flow = NormalisingFlow(26, 8, hidden=1024, generator=generator).requires_grad_(False)
    for block in flow.blocks:
        nn.init.normal_(block.net[2].weight, std=0.01, generator=generator)
    theirs = freia_of(flow)
    points = torch.randn((256, 26), generator=generator)

    def freia_likelihood(x: Tensor) -> Tensor:
        z, log_determinant = theirs(x)
        return 0.5 * z.square().sum(dim=1) - log_determinant

    def step(likelihood: Callable[[Tensor], Tensor]) -> Tensor:
        x = points.clone().requires_grad_()
        likelihood(x).sum().backward()
        assert x.grad is not None
        return x.grad

    likelihoods = flow.negative_log_likelihood, freia_likelihood
    torch.testing.assert_close(*(f(points) for f in likelihoods), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*(step(f) for f in likelihoods), rtol=1e-4, atol=1e-4)
    ours, rival = (lambda f=f: step(f) for f in likelihoods)
    measured.add("flow", *medians(ours, rival, rounds=21, clock=process_time))


def align_by_numpy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Umeyama's alignment as it is usually written in numpy, all poses at once."""
    mean_p, mean_t = predicted.mean(1, keepdims=True), truth.mean(1, keepdims=True)
    p, t = predicted - mean_p, truth - mean_t
    u, s, vt = np.linalg.svd(np.einsum("nji,njk->nik", p, t))
    sign = np.sign(np.linalg.det(np.einsum("nij,njk->nik", u, vt)))
    s[:, -1] *= sign
    u[:, :, -1] *= sign[:, None]
    rotation = np.einsum("nij,njk->nik", u, vt)
    scale = s.sum(1) / (p**2).sum((1, 2))
    return scale[:, None, None] * np.einsum("nji,nik->njk", p, rotation) + mean_t


def test_procrustes(medians: Medians, measured: Any) -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(100_000, 17, 3))
    predicted = truth + 0.1 * generator.normal(size=truth.shape)
    looped = 5_000

    def loop() -> None:
        for a, b in zip(predicted[:looped], truth[:looped], strict=True):
            centred = a - a.mean(0)
            rotation, scale = orthogonal_procrustes(centred, b - b.mean(0))
            centred @ rotation * scale / np.square(centred).sum() + b.mean(0)

    def ours() -> np.ndarray:
        return procrustes_align(predicted, truth, reflection="never")

    np.testing.assert_allclose(ours(), align_by_numpy(predicted, truth), atol=1e-9)
    measured.add(
        "procrustes-svd",
        *medians(ours, lambda: align_by_numpy(predicted, truth), clock=process_time),
    )
    fast, slow = medians(ours, loop, clock=process_time)
    measured.add("procrustes-loop", fast, slow * len(truth) / looped)


class JpegFolder(torch.utils.data.Dataset):
    """The usual dataset: a file per image, decoded when it is asked for."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        picture = cv2.cvtColor(cv2.imread(self.files[index]), cv2.COLOR_BGR2RGB)
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True)
class Feeds:
    """The same images in the three forms; each function draws ten batches of 96 at random."""

    folder: Path
    store: Path

    @classmethod
    def of(cls, store: Path, folder: Path) -> Feeds:
        """Write a store's training images as JPEG files, and as one HDF5 file with a row each."""
        images = open_store(store).split("train").images(range(2000))
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / f"{i}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        with h5py.File(folder / "images.h5", "w") as h5:
            h5.create_dataset("images", data=images, chunks=(1, *images.shape[1:]))
        return cls(folder, store)

    @staticmethod
    def picks() -> list[np.ndarray]:
        return list(np.random.default_rng(0).integers(2000, size=(BATCHES, 96)))

    def ours(self) -> None:
        """Memory-mapped, as for stores that are larger than what a trial keeps in memory."""
        feed = ImageFeed(open_store(self.store).split("train"), 128, False, None, None, CPU)
        for pick in self.picks():
            feed.fetch(torch.from_numpy(pick))

    def loader(self) -> None:
        data = JpegFolder([str(self.folder / f"{i}.jpg") for i in range(2000)])
        batches = [pick.tolist() for pick in self.picks()]
        for _ in torch.utils.data.DataLoader(data, batch_sampler=batches, num_workers=2):
            pass

    def by_row(self) -> None:
        with h5py.File(self.folder / "images.h5") as h5:
            for pick in self.picks():
                rows = np.stack([h5["images"][int(i)] for i in pick])
                torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 127.5 - 1

    def cold(self, work: Callable[[], None]) -> float:
        """Seconds of one round whose files are not in the page cache."""
        for file in [*self.store.rglob("*"), *self.folder.iterdir()]:
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened)
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        work()
        return time.perf_counter() - started


def test_batches_of_images(medians: Medians, measured: Any, store: Path, tmp_path: Path) -> None:
    feeds = Feeds.of(store, tmp_path)
    measured.add("feed-h5", *(s / BATCHES for s in medians(feeds.ours, feeds.by_row)))
    cv2.setNumThreads(2)  # the DataLoader has two workers
    measured.add("feed-jpeg", *(s / BATCHES for s in medians(feeds.ours, feeds.loader)))
    rounds = [[feeds.cold(work) for work in (feeds.ours, feeds.loader)] for _ in range(5)]
    measured.add("feed-cold", *(statistics.median(s) / BATCHES for s in zip(*rounds, strict=True)))


def test_rendering(medians: Medians, measured: Any, mocap_file: Path, tmp_path: Path) -> None:
    importer = SelfPose.importers()["mocap17"]
    made, images = tmp_path / "made", 0

    def make(workers: int | None) -> Callable[[], None]:
        def run() -> None:
            nonlocal images
            options = importer.options(image_size=128, level="rooms", limit=300, workers=workers)
            importer.run(mocap_file, made, options, silent)
            rows = SelfPose.describe_store(made).rows
            images = sum(count for split, count in rows.items() if split != "prior")
            shutil.rmtree(made)

        return run

    measured.add("rendering", *medians(make(None), make(1), rounds=3), f"{images:,} images")
