"""What people do to a sweep, as MLflow shows it, and a tag of MLflow's that stops a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from posetune.study.acts.act import Act, AddNote, RetryTrial, SetTag, StopTrial
from posetune.study.acts.asking import ask
from posetune.study.search.rungs import Decision
from posetune.tracking.projection import Projection
from posetune.tracking.stop_tags import STOP_TAG

Read = Callable[..., dict[str, Any]]


def want(scene: Any, act: Act) -> None:
    ask(scene.database, scene.name, act, by="ana@laptop", wait_s=0.0)


@pytest.mark.slow
def test_notes_and_tags_are_tags_of_the_runs_until_they_are_taken_away(
    scene: Any, shown: Read
) -> None:
    scene.run_all()
    kept = Projection(scene.database, "first", scene.home)
    kept.advance()
    want(scene, SetTag(name="paper", value="figure-3"))
    want(scene, SetTag(name="odd", trial=0))
    want(scene, AddNote(text="good", trial=0))
    kept.advance()
    found = shown(scene.home)
    assert found["first"]["tags"]["posetune.tag.paper"] == "figure-3"
    assert found["first-000"]["tags"]["posetune.tag.odd"] == "true"
    assert found["first-000"]["tags"]["posetune.notes"] == "ana@laptop: good"
    want(scene, SetTag(name="odd", value=None, trial=0))
    kept.advance()
    assert "posetune.tag.odd" not in shown(scene.home)["first-000"]["tags"]


def test_a_stopped_trial_is_killed_in_mlflow_and_runs_again_when_it_is_taken_up(
    scene: Any, shown: Read
) -> None:
    run = scene.open()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=5.0)
    kept = Projection(scene.database, "first", scene.home)
    want(scene, StopTrial(trial=0))
    run.take_up_requests()
    scene.epoch(run, number, attempt, value=4.0)
    assert not run.goes_on(number)
    kept.advance()
    stopped = shown(scene.home)["first-000"]
    assert stopped["status"] == "KILLED"
    assert stopped["tags"]["posetune.state"] == "stopped"
    assert stopped["tags"]["posetune.stopped_by"] == "ana@laptop"
    want(scene, RetryTrial(trial=0))
    run.take_up_requests()
    kept.advance()
    again = shown(scene.home)["first-000"]
    assert (again["status"], again["id"]) == ("RUNNING", stopped["id"])
    run.lease.release()


def test_the_tag_posetune_stop_on_a_trials_run_stops_that_trial_once(
    scene: Any, shown: Read
) -> None:
    run = scene.open()
    number, attempt = scene.begin(run)
    scene.epoch(run, number, attempt, value=5.0)
    kept = Projection(scene.database, "first", scene.home)
    kept.advance()
    run_id = shown(scene.home)["first-000"]["id"]
    kept._client.set_tag(run_id, STOP_TAG, "true")
    kept.advance()
    kept.advance()
    run.take_up_requests()
    assert (run.trials[0].stop_after, run.trials[0].stopped_by) == (2, "somebody@mlflow")
    assert scene.epoch(run, number, attempt, value=4.0) == Decision.CONTINUE
    assert not run.goes_on(number)
    assert run.trials[0].state == "STOPPED"
    want(scene, RetryTrial(trial=0))
    run.take_up_requests()
    kept.advance()
    run.take_up_requests()
    assert run.trials[0].stop_after is None, "the tag has been answered"
    assert shown(scene.home)["first-000"]["tags"][STOP_TAG] == "asked"
    run.lease.release()
