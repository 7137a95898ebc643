"""Which adapter version of each language is live, which is tried beside it, and every decision about them.

Key property: a language's live pointer is replaced in one step, after the version was verified against its manifest and
found to be made for the run's base model, so no reader ever meets a damaged or a foreign adapter. Rooms: `names`, the
`pointer` and how it is replaced, `versions` with their lineage, `changing` what is live, `trying` a version on traffic,
`following` all of it from a replica, and the `log` of decisions. COMPASS, section 3.3. It loads no model and knows no Ray.
"""

from compass_ray.registry.canary_shadow import set_canary, set_shadow, stop_canary, stop_shadow
from compass_ray.registry.catalogue import Catalogue, CatalogueReader, live_versions, read_catalogue
from compass_ray.registry.decision_log import DECISIONS, append_decision, read_decisions
from compass_ray.registry.live_pointer import Canary, LivePointer, read_pointer
from compass_ray.registry.names import TARGET_VERSION, AdapterName, Clock, RegistryError
from compass_ray.registry.promotion import pin, promote, promote_first_versions, require_unpinned, roll_back, unpin
from compass_ray.registry.versions import AdapterEntry, list_versions, verify_servable

__all__ = [
    "DECISIONS",
    "TARGET_VERSION",
    "AdapterEntry",
    "AdapterName",
    "Canary",
    "Catalogue",
    "CatalogueReader",
    "Clock",
    "LivePointer",
    "RegistryError",
    "append_decision",
    "list_versions",
    "live_versions",
    "pin",
    "promote",
    "promote_first_versions",
    "read_catalogue",
    "read_decisions",
    "read_pointer",
    "require_unpinned",
    "roll_back",
    "set_canary",
    "set_shadow",
    "stop_canary",
    "stop_shadow",
    "unpin",
    "verify_servable",
]
