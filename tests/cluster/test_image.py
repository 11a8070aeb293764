"""The image of cluster/Dockerfile, built for real: buildah, on a base that debootstrap has made.

No registry is asked. The base is Debian's own Python in place of the image that the file names, so
what is tested is everything behind its first line. It takes some ten minutes and 20 GB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

PROGRAMS = ("buildah", "debootstrap")
COMMIT = "0123abc"
PACKAGES = "python3,python3-pip,python3-dev,ca-certificates"
"""What the image that is named has, and Debian's smallest has not."""


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        places = [f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}"]
        self._command = ["buildah", "--storage-driver=vfs", *places]

    def __call__(self, *arguments: object) -> str:
        done = subprocess.run(
            [*self._command, *map(str, arguments)], capture_output=True, text=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout.strip()

    def run(self, container: str, command: str) -> str:
        """Run a line of shell in a container."""
        return self("run", "--isolation=chroot", container, "--", "sh", "-c", command)


@pytest.fixture(scope="module")
def builder(required: Callable[[str, bool, str], None]) -> Iterator[Builder]:
    """It has the base, named `base`."""
    is_there = os.geteuid() == 0 and all(map(shutil.which, PROGRAMS))
    required("buildah", is_there, "be root and install Debian's buildah and debootstrap")
    with tempfile.TemporaryDirectory(prefix="posetune-image-") as name:
        root, made = Path(name) / "debian", Builder(Path(name))
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for mark in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()  # the image that is named lets pip install beside Python
        container = made("from", "scratch")
        made("add", "--quiet", container, root, "/")
        made("commit", "--quiet", "--rm", container, "base")
        shutil.rmtree(root)
        yield made


def as_pip_is_told_here() -> list[str]:
    """Return the options by which pip finds packages within the image as it does without."""
    command = [sys.executable, "-m", "pip", "config", "debug"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    files = re.findall(r"^\s+(/\S+), exists: True", told, re.M)
    variables = [f"{name}={value}" for name, value in os.environ.items() if name[:4] == "PIP_"]
    texts = "\n".join([*variables, *(Path(file).read_text() for file in files)])
    # An index on this machine links to files beside its own folder.
    beside = [str(Path(index).parent) for index in re.findall(r"file://(/[\w./-]+)", texts)]
    named = [*files, *beside, *re.findall(r"(?<![\w:/])(/[\w./-]+)", texts)]
    places = {place for place in named if Path(place).exists()}
    mounts = [f"--volume={place}:{place}:ro" for place in sorted(places)]
    return [*mounts, *(f"--env={variable}" for variable in variables)]


def test_the_image_is_built_and_runs_posetune_as_a_user_of_its_own(
    builder: Builder, repository: Path
) -> None:
    file = repository / "cluster" / "Dockerfile"
    options = ["--isolation=chroot", "--from=localhost/base", f"--build-arg=COMMIT={COMMIT}"]
    builder("build", *options, *as_pip_is_told_here(), f"--file={file}", "--tag=ours", repository)

    container = builder("from", "localhost/ours")
    assert builder.run(container, "id -u; echo $POSETUNE_COMMIT $RAY_AUTH_MODE").split() == [
        "1000",
        COMMIT,
        "token",
    ]
    assert "promote" in builder.run(container, "cd; posetune --help")
    assert builder.run(container, "cd; pip check") == "No broken requirements found."
    builder.run(container, "cd; python -c 'import boto3, selfpose.trainable'")
    builder.run(container, "gcc --version && rsync --version && wget --version && git --version")
