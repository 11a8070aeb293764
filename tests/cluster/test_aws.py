"""`ray up cluster/aws.yaml` up to the moment where machines would be started, on moto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

pytestmark = pytest.mark.slow

REGION = "eu-west-1"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An account of AWS; the launcher writes its key below the home of its user."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    with mock_aws():
        yield


@pytest.mark.long
def test_the_launcher_takes_our_group_profiles_and_commands_and_makes_none_of_its_own(
    account: None, repository: Path
) -> None:
    from ray.autoscaler._private.commands import _bootstrap_config

    ec2 = boto3.client("ec2", region_name=REGION)
    group = ec2.create_security_group(GroupName="posetune", Description="posetune")["GroupId"]
    text = (repository / "cluster" / "aws.yaml").read_text()
    assert "SECURITY-GROUP-ID" in text
    config = yaml.safe_load(text.replace("SECURITY-GROUP-ID", group))

    ready = _bootstrap_config(config, no_config_cache=True)

    head, worker = (ready["available_node_types"][name] for name in ("head", "gpu"))
    assert head["node_config"]["IamInstanceProfile"] == {"Name": "posetune-head"}
    assert worker["node_config"]["IamInstanceProfile"] == {"Name": "posetune-node"}
    for node in (head, worker):
        assert node["node_config"]["SecurityGroupIds"] == [group]
        assert node["node_config"]["ImageId"].startswith("ami-")
        assert node["node_config"]["SubnetIds"]
    assert worker["resources"]["GPU"] == 1
    assert ready["setup_commands"] == []
    assert not [c for c in ready["head_setup_commands"] + ready["worker_setup_commands"]]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert {g["GroupName"] for g in groups} == {"default", "posetune"}
    iam = boto3.client("iam", region_name=REGION)
    assert iam.list_roles()["Roles"] == []
