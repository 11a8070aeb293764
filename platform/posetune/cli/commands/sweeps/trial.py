"""`posetune trial`: steer one trial of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posetune.cli.acting import SetOption, TrialArgument, act_on, read_settings, study_of
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.study.acts.act import ExtendTrial, PinTrial, RetryTrial, StopTrial
from posetune.study.acts.asking import branch_of, note_of_extension

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def stop(
    name: SweepArgument,
    trial: TrialArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a trial after the epoch that is under way; what it has trained is saved.

    posetune trial stop first 3
    """
    done = f"trial {trial} ends after its epoch; posetune trial retry takes it up again"
    _steer(
        "stop", name, StopTrial(trial=trial), home=home, address=address, as_json=as_json, done=done
    )


@app.command()
def pin(
    name: SweepArgument,
    trial: TrialArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an open trial run to its last epoch, whatever the pruner says.

    From the rung on that would have cut it, its values are left out of other trials' comparisons.

      posetune trial pin first 3
    """
    done = f"trial {trial} runs to its last epoch"
    _steer(
        "pin", name, PinTrial(trial=trial), home=home, address=address, as_json=as_json, done=done
    )


@app.command()
def retry(
    name: SweepArgument,
    trial: TrialArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take up a failed or stopped trial again, from its last checkpoint that is kept.

    posetune trial retry first 3
    """
    done = f"trial {trial} is taken up again"
    _steer(
        "retry",
        name,
        RetryTrial(trial=trial),
        home=home,
        address=address,
        as_json=as_json,
        done=done,
    )


@app.command()
def extend(
    name: SweepArgument,
    trial: TrialArgument,
    epochs: Annotated[int, typer.Option(help="Its last epoch from now on.", min=1)],
    set_: SetOption = None,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a complete or pruned trial train on, up to a later epoch.

    What it reports from then on teaches neither the sampler nor the pruner. With --set a new trial
    goes on from its last checkpoint with other values, and the trial stays as it is.

      posetune trial extend first 3 --epochs 40

      posetune trial extend first 3 --epochs 40 --set learning_rate=1e-5
    """
    if address is not None:
        given = [word for text in set_ or [] for word in ("--set", text)]
        arguments = ("trial", "extend", name, str(trial), "--epochs", str(epochs), *given)
        raise relay(*arguments, address=address, home=home, as_json=as_json)
    settings = read_settings(set_)
    if settings:
        branch = branch_of(study_of(home), name, trial, epochs=epochs, settings=settings)
        done = f"a new trial goes on from trial {trial} to epoch {epochs}, with {settings}"
        act_on(name, branch, home=home, as_json=as_json, done=done)
        return
    act = ExtendTrial(trial=trial, epochs=epochs)
    note = note_of_extension(study_of(home), name, act)
    done = f"trial {trial} trains up to epoch {epochs}"
    notes = (note,) if note else ()
    act_on(name, act, home=home, as_json=as_json, done=done, notes=notes)


def _steer(
    verb: str,
    name: str,
    act: StopTrial | PinTrial | RetryTrial,
    *,
    home: Path | None,
    address: str | None,
    as_json: bool,
    done: str,
) -> None:
    """Ask for an act on a trial: here, or on a cluster's head.

    Args:
        verb: the command's name, behind `posetune trial`.
        name: the sweep.
        act: what is wanted of which trial.
        home: the home folder, here or on the head.
        address: the head's job server; None where the study can be reached from here.
        as_json: print one JSON object instead of a line.
        done: what has happened once the act was taken up, in words.
    """
    if address is not None:
        arguments = ("trial", verb, name, str(act.trial))
        raise relay(*arguments, address=address, home=home, as_json=as_json)
    act_on(name, act, home=home, as_json=as_json, done=done)
