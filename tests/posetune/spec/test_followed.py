"""What a sweep file says of sharing a cluster is followed while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from posetune.spec.followed import FollowedRules
from posetune.spec.sweep import ClusterRules


def test_it_gives_what_the_file_says_now(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("budget: {trials: 4}\n")
    rules = FollowedRules(file, ClusterRules())
    assert rules() == ClusterRules()
    file.write_text("budget: {trials: 4}\ncluster: {priority: 5, share: 2}\n")
    assert rules() == ClusterRules(priority=5, share=2)
    file.write_text("budget: {trials: 40}\n")
    assert rules() == ClusterRules()


@pytest.mark.parametrize("text", ["cluster: {share: 0}", "cluster: {share", "cluster: 3", "- 1"])
def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("cluster: {share: 3}\n")
    rules = FollowedRules(file, ClusterRules(share=3))
    file.write_text(text)
    assert rules() == ClusterRules(share=3)
    file.unlink()
    assert rules() == ClusterRules(share=3)
    file.write_text("cluster: {share: 4.5}\n")
    assert rules() == ClusterRules(share=4.5)
