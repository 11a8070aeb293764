"""Where do the images and poses that feed the model come from, and how are they stored?

An importer hands a `sources.Source` to `importing`, which runs its jobs on all cores (`workers`)
and writes `shards`; `plausibility` holds what was read against what bodies can be. `store` maps the
result and `contact_sheet` shows it. The importers of
`formats` read a dataset's files, with `pictures.photographs` for pictures; those of `synthetic`
draw people and hands.
"""

from __future__ import annotations

from collections.abc import Mapping

from posetune.api import Importer
from selfpose.data.contact_sheet import describe, draw_contact_sheet
from selfpose.data.formats import handdb, human36m, mocap17, mpi_inf_3dhp
from selfpose.data.store import Split, Store, open_store
from selfpose.data.synthetic.bodies import procedural
from selfpose.data.synthetic.hands import procedural_hand

__all__ = ["Split", "Store", "describe", "draw_contact_sheet", "importers", "open_store"]


def importers() -> Mapping[str, Importer]:
    """Return the importer of each data format, by the format's name."""
    return {
        "handdb": handdb.IMPORTER,
        "human36m": human36m.IMPORTER,
        "mocap17": mocap17.IMPORTER,
        "mpi_inf_3dhp": mpi_inf_3dhp.IMPORTER,
        "procedural": procedural.IMPORTER,
        "procedural_hand": procedural_hand.IMPORTER,
    }
