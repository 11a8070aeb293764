"""Lists the commands; the module of a command is imported when that command is called."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

__all__ = ["COMMANDS", "ROOMS", "app"]

ROOMS: dict[str, tuple[str, dict[str, str]]] = {
    "setup": (
        "Data and sweep files",
        {
            "data": "Make stores and look at them.",
            "fields": "List every field that a sweep file can set, or print a file to start from.",
            "schema": "Print the JSON schema of a sweep file, for editors.",
            "check": "Check a sweep file and print its plan, without spending anything.",
            "train": "Train one trial in this process, without Ray.",
        },
    ),
    "sweeps": (
        "Run and steer sweeps",
        {
            "sweep": "Run the trials of one sweep until its budget is spent.",
            "submit": "Send a sweep to a Ray cluster, or to Slurm, as a job.",
            "stop": "Ask a running sweep to stop; it can be continued.",
            "hold": "Let the trials of a sweep save and wait.",
            "release": "Let a sweep go on that was held.",
            "edit": "Give a sweep another budget, other bounds or other rungs.",
            "enqueue": "Choose the parameters of the next trial.",
            "trial": "Stop, pin, retry or extend one trial.",
            "note": "Write a note about a sweep or a trial.",
            "tag": "Give a sweep or a trial a tag.",
        },
    ),
    "results": (
        "Look at results",
        {
            "show": "Show all sweeps, or one with its trials, baselines and shared stages.",
            "list": "Find sweeps by tag, owner and state.",
            "logs": "Say what happened to a sweep, event by event, from its study.",
            "compare": "Compare sweeps (by their best trials) or trials.",
            "report": "Write one self-contained page about a sweep.",
            "ui": "Open the MLflow UI on this home; Ctrl-C ends it.",
            "track": "Bring MLflow up to date with a sweep; a second call changes nothing.",
            "notify": "Say which messages wait, send them, or try a destination.",
            "export-study": "Write a sweep as an Optuna storage, for optuna-dashboard.",
        },
    ),
    "models": (
        "Models",
        {
            "evaluate": "Evaluate a model on a split, with tables and pictures.",
            "promote": "Register the best trial of a sweep and point an alias at it.",
            "approve": "Approve a version that waits for a second person.",
            "rollback": "Point an alias at the version that it pointed at before.",
            "predict": "Estimate the pose of the person in each picture.",
            "export": "Write a model as one torch.export program, or as ONNX.",
            "benchmark": "Measure how fast a model predicts on this machine.",
            "reproduce": "Train a trial again from its record, and say whether the result agrees.",
        },
    ),
    "upkeep": (
        "Keep a home in order",
        {
            "stages": "List the shared stage products, and prune them.",
            "archive": "Write a sweep with its checkpoints and its page into one file.",
            "unarchive": "Put an archived sweep into a study.",
            "backup": "Back up the study, storage and MLflow together, while sweeps run.",
            "restore": "Put a backup into an empty home.",
            "delete": "Delete a sweep from its study, with its checkpoints and logs.",
            "clean": "Delete the sweeps that the home's retention rule does not keep.",
            "queue": "Say which sweeps are at work, what each holds and what it waits for.",
            "usage": "Say who has used how much: trials, epochs, hours and cost.",
            "metrics": "Give a study as metrics for Prometheus.",
            "upgrade": "Bring a study that an earlier posetune wrote to the tables of today.",
        },
    ),
}
"""The packages of commands in their order: the title of each in `posetune --help`, and the line of
each of its commands, so that help imports no command."""

COMMANDS = {name: line for _, commands in ROOMS.values() for name, line in commands.items()}
"""The line of each command."""


class LazyCommands(TyperGroup):
    """A group whose commands are imported when they are called.

    Until then each is a command that knows its name and its line of help, which is all that help
    and suggestions ask for.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for title, commands in ROOMS.values():
            for name, line in commands.items():
                self.commands[name] = TyperCommand(name, help=line, rich_help_panel=title)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that was called, whole."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _load(command.name or ""), rest


def _load(name: str) -> Any:
    """Import a command's module and return the command."""
    room = next(room for room, (_, commands) in ROOMS.items() if name in commands)
    place = f"posetune.cli.commands.{room}.{name.replace('-', '_')}"
    module: Any = importlib.import_module(place)
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name)(getattr(module, name.replace("-", "_")))
    command = get_command(group)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyCommands,
    help="Run sweeps of complete pose-network trainings. Ray schedules the trials, Optuna chooses "
    "their parameters, MLflow shows them, and no finished epoch is lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"posetune {metadata.version('posetune')}")
        raise typer.Exit


@app.callback()
def _posetune(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Make Typer build a group, though no command is registered with it."""
