"""`posetune check`, `sweep` and `submit`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, NameOption, StoreOption, SweepFile
from posetune.cli.relay import ask_head, is_job_server
from posetune.cli.screen import console, print_json
from posetune.storage import open_storage

if TYPE_CHECKING:
    from posetune.execution.jobs import ClusterJob, Shipment
    from posetune.study.sweep import SweepRun

__all__ = ["check", "submit", "sweep"]

MLFLOW_LINE = "MLflow: "
"""How the line with the address of the sweep's run begins."""

TRACKER_S, INTERRUPTED_TRACKER_S = 8.0, 3.0
"""How long the end of a sweep waits for MLflow; what is missing then is shipped by `track`."""


def check(
    file: SweepFile,
    store: StoreOption = None,
    home: HomeOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Check every node of a cluster instead: the head's job server "
            "(http://HEAD:8265), or 'auto' on one of its nodes. --store and --home are paths there."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a sweep file and print its plan, without spending anything.

    posetune check search_spaces/selfpose/quickstart.yaml

    posetune check sweep.yaml --address http://head:8265 --store /data/store --home /shared/runs
    """
    if address is not None:
        raise _check_cluster(file, store=store, home=home, address=address, as_json=as_json)
    from posetune.cli.stores import find_store
    from posetune.execution.plan import plan_sweep
    from posetune.report.tables import format_seconds
    from posetune.spec.sweep import load_sweep
    from posetune.study.budget import unit

    spec, trainable, _ = load_sweep(file)
    found = find_store(spec, trainable, store)
    with console.status("measuring a few steps"):
        plan = plan_sweep(spec, trainable, store=found.folder, store_digest=found.summary.digest)
    if as_json:
        print_json(asdict(plan))
        return
    stages = ", ".join(f"{name} {count}" for name, count in plan.stages.items())
    console.print(f"{file}: good")
    console.print(f"trials: {plan.trials}, {plan.slots} at a time on this machine")
    console.print(f"distinct stages: {stages or 'none'}")
    low, high = plan.epochs
    console.print(f"epochs: {low} to {high} with 80 %, {plan.most_epochs} without pruning")
    if plan.not_measured:
        console.print(f"time and disk: not measured ({plan.not_measured})")
    else:
        slow, long = (format_seconds(seconds) for seconds in plan.seconds)
        few, many = plan.gpu_hours
        console.print(
            f"time: {slow} to {long} on this machine with 80 %, {few:.3g} to {many:.3g} "
            f"{unit(spec)}, from measured steps: {plan.epoch_s:.2f} s an epoch, "
            f"{format_seconds(plan.stages_s)} for all stages"
        )
        console.print(
            f"disk: at most {plan.disk_bytes / 1e6:.0f} MB of checkpoints, models and figures"
        )
    for warning in plan.warnings:
        console.print(f"warning: {warning}")
    console.print(f"Next: posetune sweep {file} --name NAME")


def _check_cluster(
    file: Path, *, store: str | None, home: Path | None, address: str, as_json: bool
) -> typer.Exit:
    from posetune.cli.preflight import FAILED, check_here, show_preflight
    from posetune.execution.jobs import Parcel
    from posetune.home import Home
    from posetune.spec.sweep import load_sweep

    spec, trainable, document = load_sweep(file)
    path, resolved = _store_on_cluster(store, spec.store), Home.resolve(home)
    with console.status(f"checking every node of {address}"):
        if is_job_server(address):
            there = ("check", "sweep.yaml", "--store", path, "--address", "auto")
            parcel = Parcel(resolved, document.text, spec.trainable)
            _, found = ask_head(*there, address=address, parcel=parcel)
        else:
            found = check_here(spec, trainable, store=path, home=resolved, address=address)
    if as_json:
        print_json(found)
    else:
        show_preflight(found)
    if not found["faults"] and not as_json:
        flags = f" --store {path} --home {resolved.folder}"
        console.print(
            f"Next: posetune submit {file} --address {address}{flags} --name NAME", soft_wrap=True
        )
    return typer.Exit(FAILED if found["faults"] else 0)


def sweep(
    file: SweepFile,
    name: NameOption = None,
    store: StoreOption = None,
    home: HomeOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="A Ray cluster to join; 'auto' on a cluster's node (default: a local one)."
        ),
    ] = None,
    watch_machine: Annotated[
        bool,
        typer.Option("--system-metrics", help="Also log how busy the driver's machine is."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the trials of one sweep until its budget is spent.

    Ctrl-C lets the trials save where they are. The same command again continues the sweep: open
    trials go first, from their last checkpoint.

      posetune sweep search_spaces/selfpose/quickstart.yaml --name first
    """
    from posetune.cli.live import live_table
    from posetune.cli.stores import find_store
    from posetune.execution.connection import RayNotStartedError
    from posetune.execution.driver import StudyLostError, run_sweep
    from posetune.execution.driver_context import Data, StopRequest
    from posetune.home import Home, check_name
    from posetune.provenance import collect
    from posetune.report.tables import as_json as view_json
    from posetune.report.tables import next_steps, sweep_tables
    from posetune.spec.sweep import configure, default_params, load_sweep
    from posetune.study.database import open_database
    from posetune.study.forecast import Foresight
    from posetune.study.sweep import Opening, SweepRun
    from posetune.study.view import read_sweep
    from posetune.tracking.tracker import Tracker

    name = check_name(name or file.stem)
    spec, trainable, document = load_sweep(file)
    found = find_store(spec, trainable, store)
    defaults = default_params(spec, trainable.config_model)
    trainable.stages(configure(trainable.config_model, spec.fixed, defaults), found.folder)
    resolved = Home.resolve(home).prepare()
    database = open_database(resolved.database)
    opening = Opening(
        name=name,
        spec=spec,
        source=document.text,
        store=found.address,
        store_digest=found.summary.digest,
        provenance=collect(),
        defaults=defaults,
    )
    watch: AbstractContextManager[object] = nullcontext()
    if watch_machine:  # importing MLflow takes seconds, and most bad input was refused by now
        from posetune.tracking.machine import MachineSampler, system_metrics

        sampler = MachineSampler(resolved.folder)  # refused before the sweep begins
        watch = system_metrics(sampler, database, name=name, home=resolved)
    run = SweepRun(database, opening)
    for note in run.warm_notes:
        console.print(note)
    if not as_json:
        console.print(_expected(run))
    foresight = Foresight()
    tracker = Tracker(database, name, resolved, announce=_announce, foresight=foresight)
    tracker.start()
    stopping = StopRequest()
    try:
        with live_table(run, foresight, quiet=as_json), watch:
            run_sweep(
                run,
                trainable,
                data=Data(found.address, found.summary.digest),
                home=resolved,
                address=address,
                stopping=stopping,
            )
    except (RayNotStartedError, StudyLostError) as error:
        console.print(f"{error}; nothing is lost, the same command again continues the sweep")
        raise typer.Exit(1) from error
    finally:
        shipped = tracker.stop(INTERRUPTED_TRACKER_S if stopping.asked_by_user else TRACKER_S)
    view = read_sweep(database, name)
    if as_json:
        print_json(view_json(view))
    else:
        console.print(sweep_tables(view))
    home_flag = f" --home {home}" if home else ""
    if not shipped:
        cause = f" ({tracker.error})" if tracker.error else ""
        console.print(
            f"MLflow is behind{cause}; bring it up to date: posetune track {name}{home_flag}"
        )
    if view.state == "INTERRUPTED":
        spent = not stopping.asked_by_user and not stopping.refused
        first = "raise the budget in the file; then " if spent else ""
        console.print(f"{view.stopped}; {first}the same command again continues it")
        raise typer.Exit(130 if stopping.asked_by_user else 2 if stopping.refused else 0)
    if view.state == "FAILED":
        reasons = sorted({trial.reason for trial in view.trials})
        console.print("every trial failed: " + "; ".join(reasons[:3]))
        raise typer.Exit(1)
    console.print(f"Next: {next_steps(view, home_flag)}", soft_wrap=True)


def _expected(run: SweepRun) -> str:
    """Return what the sweep, or its rest, will take; seconds are known from reports only."""
    from posetune.report.tables import forecast_line
    from posetune.study.forecast import forecast
    from posetune.study.prospects import Situation

    if any(trial.epoch for trial in run.trials):
        return forecast_line(run.view())
    low, _, high = forecast(Situation(run.spec, slots=1)).epochs
    return (
        f"forecast (80 %): {low:.0f} to {high:.0f} epochs, unless hours run out; their time is "
        "shown once some are trained (posetune check measures before)"
    )


def _announce(page: str) -> None:
    """On one line, however narrow the terminal: `submit` looks for it."""
    console.print(MLFLOW_LINE + page, soft_wrap=True, markup=False)


def submit(
    file: SweepFile,
    address: Annotated[str, typer.Option(help="The head's job server, e.g. http://head:8265.")],
    name: NameOption = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="The store on the cluster: a path that every node sees, or s3://..."
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="The home on the cluster: a folder that every node sees."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the job's output.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a sweep to a Ray cluster as a job.

    The file is checked here first; the packages travel with it. The same name again re-attaches
    while the job runs, and continues the sweep when it has ended. A token is read from
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.

      posetune submit sweep.yaml --address http://head:8265 --name big --store /data/store --follow
    """
    from posetune.home import Home, check_name
    from posetune.spec.sweep import load_sweep

    spec, _, document = load_sweep(file)

    from posetune.execution.jobs import Parcel, Shipment, await_start, submit_sweep  # imports Ray

    shipment = Shipment(
        name=check_name(name or file.stem),
        parcel=Parcel(Home.resolve(home), document.text, spec.trainable, console.width),
        store=_store_on_cluster(store, spec.store),
    )
    with console.status(f"waiting for {address}"):
        job = submit_sweep(shipment, address)
    if as_json:
        print_json(asdict(job))
    else:
        verb = "runs already as" if job.attached else "was submitted as"
        console.print(f"sweep {shipment.name} {verb} job {job.job_id}", soft_wrap=True)
        console.print(f"Ray: {address.rstrip('/')}/#/jobs/{job.job_id}", soft_wrap=True)
        folder = shipment.parcel.home.folder
        console.print(f"store {shipment.store} and home {folder}, on the cluster", soft_wrap=True)
        for variable in job.left_behind:
            console.print(f"warning: {variable} holds a password and does not travel: set it there")
    if follow:
        raise typer.Exit(_follow(shipment, job, address))
    if as_json:
        return
    with console.status("waiting for its driver"):
        begun = await_start(job, address, MLFLOW_LINE)
    for line in begun.log.splitlines():
        if begun.code or line.startswith(MLFLOW_LINE):
            console.print(line, soft_wrap=True, markup=False)
    if begun.code:
        raise typer.Exit(begun.code)
    console.print(
        f"Next: the same command with --follow, or posetune show {shipment.name} "
        f"--address {address} --home {folder}",
        soft_wrap=True,
    )


def _follow(shipment: Shipment, job: ClusterJob, address: str) -> int:
    from posetune.execution.jobs import follow_sweep

    try:
        return follow_sweep(
            shipment,
            job,
            address,
            show=lambda text: console.out(text, end="", highlight=False),
            say=lambda line: console.print(line, soft_wrap=True),
        )
    except KeyboardInterrupt:
        console.print(
            f"sweep {shipment.name} goes on without you; the same command follows it again, "
            f"posetune stop {shipment.name} --address {address} stops it"
        )
        return 130


def _store_on_cluster(given: str | None, named: str | None) -> str:
    if given is None and named is None:
        raise BadInputError("no store: name one with --store, or as `store:` in the sweep file")
    return open_storage(given or named or "").address
