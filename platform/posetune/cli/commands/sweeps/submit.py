"""`posetune submit`: sends a sweep to a Ray cluster as a job."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.cli.options import JsonOption, NameOption, SweepFile
from posetune.cli.relay import MLFLOW_LINE, store_on_cluster
from posetune.cli.screen import console, print_json
from posetune.home import Home, check_name
from posetune.spec.loading import load_sweep

if TYPE_CHECKING:
    from posetune.execution.jobs import ClusterJob, Shipment

__all__ = ["submit"]


def submit(
    file: SweepFile,
    address: Annotated[
        str, typer.Option(help="Address of the head's job server, for example http://head:8265.")
    ],
    name: NameOption = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Store on the cluster: a path that every node sees, or s3://..."
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Home on the cluster: a folder that every node sees."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the job's output until the sweep ends.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a sweep to a Ray cluster as a job.

    The file is checked here first; the packages travel with it. The same name again re-attaches
    while the job runs, and continues the sweep when it has ended. A token is read from
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.

      posetune submit sweep.yaml --address http://head:8265 --name big --store /data/store --follow
    """
    spec, _, document = load_sweep(file)

    from posetune.execution.jobs import Parcel, Shipment, await_start, submit_sweep  # imports Ray

    shipment = Shipment(
        name=check_name(name or file.stem),
        parcel=Parcel(Home.resolve(home), document.text, spec.trainable, console.width),
        store=store_on_cluster(store, spec.store),
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
