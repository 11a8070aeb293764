"""`posetune enqueue`: choose the parameters of the next trial of a sweep."""

from __future__ import annotations

from posetune.cli.acting import SetOption, act_on, read_settings, study_of
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.study.acts.asking import enqueue_of

__all__ = ["enqueue"]


def enqueue(
    name: SweepArgument,
    set_: SetOption = None,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the parameters of the next trial; the sampler learns from it as from its own.

    It is checked as a sweep file is. Fields without --set have the values of trial 0, the defaults.

      posetune enqueue first --set flow.depth=8 --set batch_size=64
    """
    if address is not None:
        given = [word for text in set_ or [] for word in ("--set", text)]
        raise relay("enqueue", name, *given, address=address, home=home, as_json=as_json)
    act = enqueue_of(study_of(home), name, read_settings(set_))
    chosen = ", ".join(f"{key}={value}" for key, value in act.params.items())
    act_on(name, act, home=home, as_json=as_json, done=f"the next trial has {chosen}")
