"""Where trials find room: arithmetic, and what is said of a trial that has no place."""

from __future__ import annotations

import pytest

from posetune.execution.nodes.cluster_room import (
    HeldResources,
    Node,
    accepts,
    describe_wait,
    lacking_slots,
    slots,
)


def node(name: str, *, cpu: float = 0, gpu: float = 0, free: float = 1, **more: object) -> Node:
    total = {"cpu": float(cpu), "gpu": float(gpu)}
    return Node(
        name, total, {k: v * free for k, v in total.items()}, more.pop("labels", {}), **more
    )


@pytest.mark.parametrize(
    ("condition", "accepted"),
    [
        ("h100", {"h100"}),
        ("!h100", {"a100", None}),
        ("in(h100, a100)", {"h100", "a100"}),
        ("!in(h100,a100)", {None}),
    ],
)
def test_labels_are_matched_as_ray_matches_them(condition: str, accepted: set) -> None:
    for kind in ("h100", "a100", None):
        labels = {} if kind is None else {"gpu": kind}
        assert accepts({"gpu": condition}, labels) == (kind in accepted)


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        ({"cpu": 2.0, "gpu": 0.0}, [node("a", cpu=3), node("b", cpu=3)], 2),  # no trial spans two
        ({"cpu": 0.1, "gpu": 0.0}, [node("a", cpu=1)], 10),
        ({"cpu": 1.0, "gpu": 0.4}, [node("a", cpu=64, gpu=8)], 16),  # not 20: each lies on one GPU
        ({"cpu": 1.0, "gpu": 2.0}, [node("a", cpu=64, gpu=5)], 2),
        ({"cpu": 1.0, "gpu": 1.0}, [node("a", cpu=64), node("b", cpu=2, gpu=8)], 2),
        ({"cpu": 1.0, "gpu": 0.0}, [node("a", cpu=4, leaving=True)], 0),
    ],
)
def test_a_cluster_has_as_many_slots_as_its_nodes_hold_trials(
    asked: dict, nodes: list[Node], expected: int
) -> None:
    assert slots(asked, {}, nodes) == expected


def test_only_nodes_with_the_labels_count() -> None:
    nodes = [node("a", cpu=4, labels={"gpu": "h100"}), node("b", cpu=8)]
    assert slots({"cpu": 1.0, "gpu": 0.0}, {"gpu": "h100"}, nodes) == 4


@pytest.mark.parametrize(
    ("wanted", "under_way", "slots", "entitled", "lacking"),
    [
        (8, 1, 0, None, 7),  # the first trial waits, and is asked for by itself
        (8, 3, 3, None, 5),
        (8, 1, 3, None, 5),  # two slots are still to be taken
        (8, 8, 8, None, 0),
        (2, 2, 3, None, 0),  # the end: a node may go
        (2, 3, 2, None, 0),  # a node has gone, and its trial waits
        (0, 0, 0, None, 0),
        (20, 2, 4, 2, 18),  # two sweeps have two slots each of four, and each asks for its own
        (20, 4, 4, 2, 16),  # two of its slots are to go back
        (20, 0, 4, 0, 0),  # others are served first
        (20, 3, 4, 0, 0),
        (8, 3, 3, 9, 5),  # no more than what is there
    ],
)
def test_a_sweep_lacks_the_slots_that_it_could_use_and_has_not(
    wanted: int, under_way: int, slots: int, entitled: int | None, lacking: int
) -> None:
    found = lacking_slots(wanted, under_way=under_way, slots=slots, entitled=entitled)
    assert found == lacking


def test_sweeps_that_share_a_cluster_ask_together_for_what_they_can_use() -> None:
    """Each counts its own part of what is there, so no slot is asked for twice."""
    for there in range(0, 10, 2):
        half = there // 2
        asked = sum(
            lacking_slots(wanted, under_way=half, slots=there, entitled=half or None)
            for wanted in (6, 4)
        )
        assert there + asked == 10


GPU = {"cpu": 1.0, "gpu": 1.0}
LABELLED = node("a", cpu=4, gpu=2, labels={"kind": "a100"})


@pytest.mark.parametrize(
    ("wanted", "nodes", "said"),
    [
        ({}, [], "a node; there is none"),
        ({"kind": "h100"}, [LABELLED], "labels {kind: h100}; there is 1 with {kind: a100}"),
        ({}, [node("a", cpu=1, gpu=2, leaving=True)], "a node; 1 that would do are being drained"),
        ({}, [node("a", cpu=8), node("b", cpu=2)], "cpu 1 and gpu 1; the largest that may be"),
        ({}, [node("a", cpu=8, gpu=1, free=0)], "gpu 1; of cpu 8 and gpu 1 that may be used"),
    ],
)
def test_a_trial_without_a_place_is_said_to_wait_for_what_is_missing(
    wanted: dict, nodes: list[Node], said: str
) -> None:
    assert said in describe_wait(GPU, wanted, nodes, [])


def test_who_holds_what_is_missing_is_named() -> None:
    nodes = [Node("a", {"cpu": 8, "gpu": 4}, {"cpu": 4, "gpu": 0}, {})]
    holdings = [
        HeldResources("big", "a", {"cpu": 1, "gpu": 1}),
        HeldResources("big", "a", {"gpu": 2}),
    ]
    assert describe_wait(GPU, {}, nodes, [*holdings, HeldResources("far", "b", GPU)]) == (
        "gpu 1; of gpu 4 that may be used sweep big holds gpu 3 and others hold gpu 1"
    )
