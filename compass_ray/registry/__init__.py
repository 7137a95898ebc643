"""The registry of adapter versions: the live version of each language, its canary and shadow, and every decision.

A live pointer is replaced in one step, after the version is verified: its files match its manifest and it was trained on the
run's base model. Readers never see a damaged or foreign adapter. Loads no model and knows no Ray. COMPASS, section 3.3.

Modules: `names`; `live_pointer`, the file and its replacement; `versions` with their lineage; `promotion` (promote, roll back,
pin); `canary_shadow`; `catalogue`, the polling reader of a replica; `decision_log`.
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
