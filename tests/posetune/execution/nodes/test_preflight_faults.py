"""`posetune check --address` on one real Ray cluster whose nodes each have a fault of their own.

The nodes say that they have a GPU, of which the toy plays the memory; their faults are in `FAULTY`
and in their environment.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from support.commands import run_here

from posetune.execution.nodes import preflight

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LOOK_S = 60
"""For the nodes to look around where one never answers: the others must be done by then."""

FAULTY = """
import os
import signal

from posetune.accelerator import CUDA
from posetune.testing.toy import Toy


class Faulty(Toy):
    @classmethod
    def forecast(cls, config, context):
        if os.environ.get("FAULT") == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FAULT") == "small" and config.depth == 8:
            raise MemoryError("tried to allocate 2 GB")
        return super().forecast(config, context)


class Blind(Toy):
    accelerator = CUDA
"""


class Nodes:
    """A head that takes no trials, and a node for each fault."""

    def __init__(self, folder: Path, keys: dict[str, str]) -> None:
        self.folder = folder
        self.network = f"127.{secrets.randbelow(100) + 120}.{secrets.randbelow(256)}"
        size = {"object_store_memory": 100 * 1024**2}
        stale = {**keys, "AWS_SECRET_ACCESS_KEY": "stale"}
        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": f"{self.network}.1"}
        # A node that stays silent is not to be dead before the check has waited for it.
        patient = {"_system_config": {"health_check_failure_threshold": 1000}}
        head_node = {**size, **head, **patient, "env_vars": stale}
        self.cluster = Cluster(initialize_head=True, head_node_args=head_node)
        room = {**size, "num_cpus": 1, "num_gpus": 1}
        self.nodes = {
            fault: self.cluster.add_node(
                **room, node_ip_address=f"{self.network}.{last}", env_vars={"FAULT": fault, **stale}
            )
            for last, fault in enumerate(("dies", "small", "silent"), start=2)
        }

    def name(self, fault: str) -> str:
        last = 2 + list(self.nodes).index(fault)
        return f"node {self.network}.{last} ({socket.gethostname()})"

    def send(self, fault: str, number: signal.Signals) -> None:
        os.kill(self.nodes[fault].all_processes["raylet"][0].process.pid, number)

    def check(self, file: Path, *options: str, **environment: str) -> dict[str, list[str]]:
        """Return the faults that the command prints, by what is before the text."""
        words = ("check", file, "--address", self.cluster.address, *options)
        ended = run_here(*words, folder=self.folder, environment=environment)
        assert ended.returncode == 4, ended.stderr
        assert "Traceback" not in ended.stderr
        found: dict[str, list[str]] = {}
        for line in ended.stderr.splitlines():
            where, check, text = line.split(": ", 2)
            found.setdefault(f"{where}: {check}", []).append(text)
        return found


@pytest.fixture(scope="module")
def guarded(
    s3_servers: Callable[..., AbstractContextManager[str]],
) -> Iterator[tuple[str, dict[str, str]]]:
    """A storage address on an S3 server that asks for keys, and how it is reached with them."""
    with s3_servers(INITIAL_NO_AUTH_ACTION_COUNT="4") as server:
        import boto3

        def client(service: str) -> Any:
            given = {"aws_access_key_id": "first", "aws_secret_access_key": "calls are free"}
            return boto3.client(service, "us-east-1", endpoint_url=server, **given)

        iam = client("iam")
        iam.create_user(UserName="u")
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam.put_user_policy(UserName="u", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="u")["AccessKey"]
        client("s3").create_bucket(Bucket="guarded")
        yield (
            "s3://guarded/runs",
            {
                "AWS_ENDPOINT_URL": server,
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            },
        )


def left_in(address: str, keys: dict[str, str]) -> int:
    """Return how many objects a bucket holds, those that stand for folders too."""
    import boto3

    client = boto3.client(
        "s3",
        keys["AWS_REGION"],
        endpoint_url=keys["AWS_ENDPOINT_URL"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    return client.list_objects_v2(Bucket=address.split("/")[2])["KeyCount"]


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, guarded: tuple[str, dict[str, str]]
) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty.py").write_text(FAULTY)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        patched.setenv("PYTHONPATH", os.pathsep.join(paths))
        patched.setenv("POSETUNE_TRAINABLES", "faulty:Faulty,faulty:Blind")
        patched.setenv("POSETUNE_HOME", str(folder / "home"))
        started = Nodes(folder, guarded[1])
        yield started
        started.cluster.shutdown()


@pytest.fixture
def file(toy_sweep: Callable[..., Path]) -> Callable[..., Path]:
    """A sweep file whose keys are changed."""

    def write(**changes: str) -> Path:
        path = toy_sweep()
        text = path.read_text()
        for before, after in {"posetune.testing.toy:Toy": "faulty:Faulty", **changes}.items():
            assert before in text
            text = text.replace(before, after)
        path.write_text(text)
        return path

    return write


@pytest.mark.long
def test_gpus_that_torch_does_not_see_and_keys_that_s3_refuses_are_named(
    nodes: Nodes, file: Callable[..., Path], guarded: tuple[str, dict[str, str]]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    address, keys = guarded
    changes = {"{cpu: 1}": "{cpu: 1, gpu: 1}", "faulty:Faulty": "faulty:Blind"}
    found = nodes.check(file(**changes), POSETUNE_STORAGE=address, **keys)
    for fault in nodes.nodes:
        (line,) = found.pop(f"{nodes.name(fault)}: gpu")
        assert "torch sees no GPU on this machine; run this where there is one" in line
    refused = [name for name in found if name.endswith(": storage")]
    assert len(refused) == 4  # the head's, too
    for where in refused:
        (line,) = found.pop(where)
        assert where.startswith(f"node {nodes.network}.")
        assert line.startswith(f"{address} at {keys['AWS_ENDPOINT_URL']}: refuses us")
        assert "give credentials that may read and write it" in line
    assert found == {}
    assert left_in(address, keys) == 0


@pytest.mark.long
def test_what_the_driver_lacks_and_resources_that_no_node_has_are_named(
    nodes: Nodes, file: Callable[..., Path], guarded: tuple[str, dict[str, str]]
) -> None:
    address, keys = guarded
    keys = {**keys, "AWS_SECRET_ACCESS_KEY": "wrong"}
    changes = {"{cpu: 1}": "{cpu: 99}"}
    found = nodes.check(file(**changes), "--store", "/no/store", POSETUNE_STORAGE=address, **keys)
    (line,) = found.pop("the driver: store")
    assert line.startswith("/no/store: is no toy store")
    (line,) = found.pop("the driver: storage")
    assert "refuses us" in line
    (line,) = found.pop("the cluster: resources")
    assert line.startswith("a trial asks for a node with cpu 99; the largest that may be used has")
    assert line.endswith("; lower `resources` in the sweep file, or add nodes")
    assert found == {}


@pytest.mark.long
def test_nodes_that_die_or_fail_at_a_depth_are_named(
    nodes: Nodes, file: Callable[..., Path]
) -> None:
    changes = {"{cpu: 1}": "{cpu: 1, gpu: 0.5}", "fixed: {": "fixed: {hold_mb: 600, "}
    found = nodes.check(file(**changes))
    (line,) = found.pop(f"{nodes.name('dies')}: answer")
    assert line.startswith("the check ended with: ")
    assert line.endswith("; the node's Ray logs say more")
    (line,) = found.pop(f"{nodes.name('small')}: batch")
    assert line.startswith("depth=8: out of memory (tried to allocate 2 GB); lower the batch size")
    for fault in ("small", "silent"):
        (line,) = found.pop(f"{nodes.name(fault)}: memory")
        assert line.startswith(
            "a trial takes 0.6 GB of the GPU's memory, its share is 0.5 GB; raise"
        )
    assert found == {}
    assert not (nodes.folder / "home").exists()


@pytest.mark.long
def test_a_node_that_stays_silent_is_named(
    nodes: Nodes, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "LOOK_S", LOOK_S)
    nodes.send("silent", signal.SIGSTOP)
    try:
        found = nodes.check(file(**{"{cpu: 1}": "{cpu: 1, gpu: 0.5}"}))
    finally:
        nodes.send("silent", signal.SIGCONT)
    assert found.pop(f"{nodes.name('silent')}: answer") == [
        f"no answer within {LOOK_S} s; look at it with `ray status`"
    ]
    assert set(found) == {f"{nodes.name('dies')}: answer", f"{nodes.name('small')}: batch"}
