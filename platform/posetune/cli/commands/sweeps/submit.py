"""`posetune submit`: sends a sweep to a Ray cluster, or to Slurm, as a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.api import BadInputError
from posetune.cli.options import JsonOption, NameOption, SweepFile
from posetune.cli.relay import MLFLOW_LINE, store_on_cluster
from posetune.cli.screen import console, print_json
from posetune.home import Home, check_name
from posetune.spec.loading import load_sweep

if TYPE_CHECKING:
    from posetune.execution.jobs.sweep_jobs import ClusterJob, Shipment
    from posetune.execution.slurm import SlurmJob

__all__ = ["submit"]

PANEL = "Slurm"


def submit(
    file: SweepFile,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the head's job server, for example http://head:8265.",
            show_default=False,
        ),
    ] = None,
    name: NameOption = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Store on the cluster: a path that its head sees, or s3://..."
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
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm",
            help="Submit the sweep to Slurm, as a job that starts a Ray of its own.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    partition: Annotated[
        str | None, typer.Option(help="Partition to run in.", rich_help_panel=PANEL)
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Account to charge.", rich_help_panel=PANEL)
    ] = None,
    qos: Annotated[
        str | None, typer.Option(help="Quality of service to ask for.", rich_help_panel=PANEL)
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Time limit, as [DAYS-]HOURS:MINUTES:SECONDS (default: 24:00:00). A job that "
            "reaches it is queued again and goes on.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Number of nodes (default: 1).", min=1, rich_help_panel=PANEL),
    ] = None,
    gpus_per_node: Annotated[
        str | None,
        typer.Option(
            help="Number of GPUs of each node, or TYPE:NUMBER (default: none).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    cpus_per_task: Annotated[
        int | None,
        typer.Option(
            help="Number of CPUs of each node (default: what the trials take that its GPUs hold; "
            "without GPUs what one trial takes, so that a node runs one at a time).",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None,
    mem: Annotated[
        str | None,
        typer.Option(
            help="Memory of each node, for example 64G (default: what Slurm gives).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the job's script and submit nothing.",
            rich_help_panel=PANEL,
        ),
    ] = False,
) -> None:
    """Send a sweep to a Ray cluster, or to Slurm, as a job.

    The file is checked here first. The same name again re-attaches while the job is there, and
    continues the sweep when it has ended. To a Ray cluster the packages travel along, and a token
    is read from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. A job of Slurm runs this installation; it,
    the file, the store and the home must be where all nodes see them.

      posetune submit sweep.yaml --address http://head:8265 --name big --store /data/store --follow

      posetune submit sweep.yaml --slurm --partition gpu --nodes 4 --gpus-per-node 4 --name big
    """
    given = {
        "partition": partition,
        "account": account,
        "qos": qos,
        "time": time,
        "nodes": nodes,
        "gpus-per-node": gpus_per_node,
        "cpus-per-task": cpus_per_task,
        "mem": mem,
    }
    options = {key: str(value) for key, value in given.items() if value is not None}
    of_slurm = [*options, *(["dry-run"] if dry_run else [])]
    _check_place(address, slurm=slurm, follow=follow, of_slurm=of_slurm)
    spec, _, document = load_sweep(file)
    sweep_name, there = check_name(name or file.stem), store_on_cluster(store, spec.store)
    resolved = Home.resolve(home)
    if address is None:
        from posetune.execution.slurm import SlurmJob, node_options

        options = {"nodes": "1", **options}
        options |= node_options(spec.resources, gpus_per_node, cpus_per_task)
        job = SlurmJob(file, sweep_name, there, resolved, options)
        _submit_to_slurm(job, dry_run=dry_run, as_json=as_json)
        return

    from posetune.execution.jobs.parcel import Parcel
    from posetune.execution.jobs.sweep_jobs import Shipment  # imports Ray

    parcel = Parcel(resolved, document.text, spec.trainable, console.width)
    _submit_to_ray(Shipment(sweep_name, parcel, there), address, follow=follow, as_json=as_json)


def _check_place(
    address: str | None, *, slurm: bool, follow: bool, of_slurm: Sequence[str]
) -> None:
    """Refuse options that contradict each other.

    Raises:
        BadInputError: says which.
    """
    if slurm == (address is not None):
        raise BadInputError(
            "submit: give either --address http://HEAD:8265, for a Ray cluster, or --slurm"
        )
    if slurm and follow:
        raise BadInputError("--follow: only with --address; follow a job of Slurm by `tail -F`")
    if of_slurm and not slurm:
        raise BadInputError(f"--{of_slurm[0]}: only with --slurm")


def _submit_to_slurm(job: SlurmJob, *, dry_run: bool, as_json: bool) -> None:
    from posetune.execution.slurm import job_script, submit_job

    if dry_run:
        script = job_script(job)
        if as_json:
            print_json({"script": script})
        else:
            print(script, end="")
        return
    submitted = submit_job(job)
    if as_json:
        print_json(asdict(submitted))
        return
    verb = "is in Slurm already as" if submitted.attached else "was submitted as"
    for line in (
        f"sweep {job.name} {verb} job {submitted.job_id}",
        f"script: {submitted.script}",
        f"output: {submitted.log}",
        f"store {job.store} and home {job.home.folder}, where every node must see them",
        f"Next: posetune show {job.name} --home {job.home.folder}; posetune stop {job.name} --home "
        f"{job.home.folder} ends it (scancel {submitted.job_id} loses the epochs under way)",
    ):
        console.print(line, soft_wrap=True)


def _submit_to_ray(shipment: Shipment, address: str, *, follow: bool, as_json: bool) -> None:
    from posetune.execution.jobs.sweep_jobs import await_start, submit_sweep

    with console.status(f"waiting for {address}"):
        job = submit_sweep(shipment, address)
    folder = shipment.parcel.home.folder
    if as_json:
        print_json(asdict(job))
    else:
        verb = "runs already as" if job.attached else "was submitted as"
        console.print(f"sweep {shipment.name} {verb} job {job.job_id}", soft_wrap=True)
        console.print(f"Ray: {address.rstrip('/')}/#/jobs/{job.job_id}", soft_wrap=True)
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
    from posetune.execution.jobs.sweep_jobs import follow_sweep

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
