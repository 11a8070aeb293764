"""`posetune schema`: a sweep file's JSON schema, for editors."""

from __future__ import annotations

from posetune.cli.options import AnyTrainableArgument
from posetune.cli.screen import print_json
from posetune.spec.fields import sweep_schema
from posetune.spec.registration import DEFAULT_TRAINABLE, load_trainable

__all__ = ["schema"]


def schema(trainable: AnyTrainableArgument = DEFAULT_TRAINABLE) -> None:
    """Print the JSON schema of a trainable's sweep files, by which editors complete and check them.

    posetune schema > sweep.schema.json
    """
    print_json(sweep_schema(trainable, load_trainable(trainable)))
