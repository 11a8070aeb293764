"""The list of commands."""

from __future__ import annotations

import typer

from posetune.cli import (
    compare,
    control,
    data,
    evaluate,
    look,
    promote,
    reproduce,
    results,
    sweep,
    train,
    use,
)

__all__ = ["app"]

app = typer.Typer(
    help="Sweeps of complete pose-network trainings: scheduled by Ray, searched by Optuna, "
    "recorded by MLflow, none of them lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data", help="Make stores and look at them.")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("check")(sweep.check)
app.command("sweep")(sweep.sweep)
app.command("submit")(sweep.submit)
app.command("show")(results.show)
app.command("compare")(compare.compare)
app.command("logs")(control.logs)
app.command("stop")(control.stop)
app.command("report")(look.report)
app.command("reproduce")(reproduce.reproduce)
app.command("export-study")(look.export_study)
app.command("track")(results.track)
app.command("stages")(results.stages)
app.command("promote")(promote.promote)
app.command("rollback")(promote.rollback)
app.command("predict")(use.predict)
app.command("export")(use.export)
app.command("ui")(results.ui)
