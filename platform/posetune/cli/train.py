"""`posetune train`: one trial in this process."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from posetune.api import BadInputError
from posetune.cli.options import HomeOption, JsonOption, StoreOption, SweepFile
from posetune.cli.screen import console, interruptible, print_json, progress_bar

__all__ = ["train"]


def train(
    file: SweepFile,
    store: StoreOption = None,
    home: HomeOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the config; repeatable."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs to train (default: the file's max_epochs).", min=1)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="End before an epoch that would not fit in.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the trial.", min=0)] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the training (default: the file's).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier training.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one trial in this process, without Ray: the file's defaults, changed by --set.

    The same command again continues from the last epoch.

      posetune train search_spaces/selfpose/quickstart.yaml --set flow.depth=8 --epochs 3
    """
    from posetune.api import TrialFailedError
    from posetune.cli.stores import find_store
    from posetune.home import Home, check_name
    from posetune.spec.sweep import default_params, load_sweep
    from posetune.trial.run import EpochResult, Started
    from posetune.trial.single import SingleTrial, forget_single, train_single

    name = check_name(name or file.stem)
    spec, trainable, _ = load_sweep(file)
    if epochs is not None:
        pruner = spec.pruner.model_copy(update={"max_epochs": epochs, "grace_epochs": 1})
        spec = spec.model_copy(update={"pruner": pruner})
    params = {**default_params(spec, trainable.config_model), **_settings(set_ or [])}
    _check_settings(spec, trainable, params)
    found = find_store(spec, trainable, store)
    resolved = Home.resolve(home).prepare()
    record = resolved.folder / "train" / f"{name}.json"
    trial = SingleTrial(
        name=name,
        spec=spec,
        params=params,
        seed=seed,
        store=found.address,
        store_digest=found.summary.digest,
        storage=resolved.storage,
        record=record,
    )
    if fresh:
        forget_single(trial)
    history: list[dict[str, Any]] = []

    baselines: dict[str, float] = {}

    def on_start(started: Started) -> None:
        products = {name: stage.folder for name, stage in started.stages.items()}
        baselines.update(trainable.baselines(products, spec.objective.metric))
        if not as_json:
            for baseline, value in baselines.items():
                console.print(f"baseline {baseline}: {spec.objective.metric} {value:.2f}")

    def on_epoch(result: EpochResult) -> None:
        value = result.metrics[spec.objective.metric]
        history.append({"epoch": result.epoch, "seconds": result.seconds, **result.metrics})
        if not as_json:
            console.print(
                f"epoch {result.epoch}/{spec.pruner.max_epochs}: {spec.objective.metric} "
                f"{value:.2f} ({result.seconds:.1f} s)"
            )

    try:
        with interruptible(), progress_bar("train", quiet=as_json) as progress:
            model = train_single(
                trial,
                trainable,
                on_start=on_start,
                on_epoch=on_epoch,
                progress=progress,
                seconds=None if minutes is None else 60 * minutes,
            )
    except TrialFailedError as error:
        console.print(f"the trial failed: {error}")
        raise typer.Exit(1) from error
    if as_json:
        print_json({"model": model, "params": params, "epochs": history, "baselines": baselines})
        return
    console.print(f"model: {model}")
    console.print(
        "Next: the same command with --epochs trains on; posetune predict "
        f"{model} IMAGE... --out DIR; posetune sweep {file} --name NAME",
        soft_wrap=True,
    )


def _settings(given: list[str]) -> dict[str, Any]:
    import yaml

    settings: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise BadInputError(f"--set {text}: must be KEY=VALUE, e.g. --set flow.depth=8")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise BadInputError(f"--set {text}: the value is not valid YAML") from error
    return settings


def _check_settings(spec: Any, trainable: Any, params: dict[str, Any]) -> None:
    from pydantic import ValidationError

    from posetune.spec.sweep import configure

    try:
        configure(trainable.config_model, spec.fixed, params)
    except (ValidationError, TypeError) as error:
        fault = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        if fault is None:
            raise BadInputError(f"--set: {error}") from error
        field = ".".join(str(part) for part in fault["loc"])
        message = "no such field" if fault["type"] == "extra_forbidden" else fault["msg"]
        raise BadInputError(f"--set {field}: {message}, got {fault['input']!r}") from error
