"""A file with a secret that others can read is refused, and nothing is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from posetune.api import BadInputError
from posetune.execution.jobs.parcel import Parcel
from posetune.execution.jobs.sweep_jobs import Shipment, submit_sweep
from posetune.home import Home
from posetune.storage import open_storage
from posetune.storage.credentials import check_aws, check_mlflow, check_ray

CHECKS = {
    ".mlflow/credentials": check_mlflow,
    ".aws/credentials": check_aws,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o604, None])
def test_only_a_file_of_its_owner_alone_is_taken(home: Path, name: str, mode: int | None) -> None:
    if mode is not None:
        (home / name).parent.mkdir()
        (home / name).write_text("planted")
        (home / name).chmod(mode)
    if mode in (0o640, 0o604):
        with pytest.raises(BadInputError, match=rf"mode {mode:o}\); chmod 600 .*{name}"):
            CHECKS[name]()
    else:
        CHECKS[name]()


def test_the_file_that_ray_writes_is_made_private(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("planted")
    (home / ".ray" / "auth_token").chmod(0o644)
    check_ray()
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_submit_refuses_it_before_it_asks_anybody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = home / "token"
    token.write_text("planted")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    parcel = Parcel(Home.resolve(home), "text", "posetune.testing.toy:Toy")
    shipment = Shipment("s", parcel, "/store")
    with pytest.raises(BadInputError, match="others can read"):
        submit_sweep(shipment, "http://127.0.0.1:9")


def test_a_bucket_is_not_asked_either(home: Path) -> None:
    keys = home / ".aws" / "credentials"
    keys.parent.mkdir()
    keys.write_text("planted")
    keys.chmod(0o644)
    with pytest.raises(BadInputError, match="others can read"):
        open_storage("s3://bucket/x").prepare()
