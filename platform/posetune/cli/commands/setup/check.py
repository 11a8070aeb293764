"""`posetune check`: a sweep file, or every node of a cluster, before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, StoreOption, SweepFile
from posetune.cli.preflight import FAILED, check_here, show_preflight
from posetune.cli.relay import ask_head, is_job_server, store_on_cluster
from posetune.cli.screen import console, print_json
from posetune.execution.nodes.plan import Plan, plan_sweep
from posetune.home import Home, sqlite_address
from posetune.report.tables import cost_of_hours
from posetune.report.wording import format_seconds
from posetune.spec.home_file import priced_by
from posetune.spec.loading import load_sweep
from posetune.spec.sweep import SweepSpec
from posetune.study.budget import unit
from posetune.workflow.stores import find_store

__all__ = ["check"]


def check(
    file: SweepFile,
    store: StoreOption = None,
    home: HomeOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Check every node of a cluster instead: the head's job server "
            "(http://HEAD:8265), or 'auto' on one of its nodes. --store and --home are then paths "
            "on the cluster."
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

    spec, trainable, _ = load_sweep(file)
    spec = priced_by(spec, Home.resolve(home).folder)
    found = find_store(spec, trainable, store)
    with console.status("measuring a few steps"):
        plan = plan_sweep(spec, trainable, store=found.folder, store_digest=found.summary.digest)
    plan = replace(plan, warnings=(*plan.warnings, *_tracking_faults(Home.resolve(home))))
    if as_json:
        print_json(asdict(plan))
        return
    stages = ", ".join(f"{name} {count}" for name, count in plan.stages.items())
    console.print(f"{file}: good")
    console.print(f"trials: {plan.trials}, {plan.slots} at a time on this machine")
    console.print(f"distinct stages: {stages or 'none'}")
    console.print(f"compared: {_compared(plan, spec)}")
    low, high = plan.epochs
    console.print(f"epochs: {low} to {high} with 80 %, {plan.most_epochs} without pruning")
    if plan.not_measured:
        console.print(f"time and disk: not measured ({plan.not_measured})")
    else:
        slow, long = (format_seconds(seconds) for seconds in plan.seconds)
        few, many = plan.gpu_hours
        console.print(
            f"time: {slow} to {long} on this machine with 80 %, {few:.3g} to {many:.3g} "
            f"{unit(spec)}{cost_of_hours(spec, few, many)}, from measured steps: "
            f"{plan.epoch_s:.2f} s an epoch, "
            f"{format_seconds(plan.stages_s)} for all stages"
        )
        console.print(
            f"disk: at most {plan.disk_bytes / 1e6:.0f} MB of checkpoints, models and figures"
        )
    if plan.mps:
        console.print(plan.mps)
    for warning in plan.warnings:
        console.print(f"warning: {warning}")
    console.print(f"Next: posetune sweep {file} --name NAME")


def _tracking_faults(home: Home) -> list[str]:
    """Return why the sweep could not be shown in MLflow as it is now; empty where it can."""
    if (
        home.tracking == sqlite_address(home.folder / "mlflow.db")
        and not (home.folder / "mlflow.db").exists()
    ):
        return []  # the sweep will make it
    # Imports MLflow, which takes seconds.
    from posetune.tracking.server.connection import reach_tracking

    try:
        reach_tracking(home)
    except BadInputError as error:
        return [str(error)]
    return []


def _compared(plan: Plan, spec: SweepSpec) -> str:
    """Return in which epochs trials are compared, and why there, in words."""
    if not plan.compared_epochs:
        return "never; every trial runs to its last epoch"
    epochs = ", ".join(map(str, plan.compared_epochs))
    given = {"grace_epochs", "reduction_factor"} & spec.pruner.model_fields_set
    fitted = plan.rates_decay and spec.pruner.name == "asha" and not given
    why = " (the learning rates decay, so the first comes late)" if fitted else ""
    return f"after epoch {epochs} of {spec.pruner.max_epochs}{why}"


def _check_cluster(
    file: Path, *, store: str | None, home: Path | None, address: str, as_json: bool
) -> typer.Exit:
    from posetune.execution.jobs.parcel import Parcel

    spec, trainable, document = load_sweep(file)
    path, resolved = store_on_cluster(store, spec.store), Home.resolve(home)
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
