"""Which adapter version of each language is live, which is tried beside it, and every decision about them.

Key property: a language's live pointer is replaced in one step, after the version was verified against its manifest and
found to be made for the run's base model, so no reader ever meets a damaged or a foreign adapter. Rooms: `names`, the
`pointer` and how it is replaced, `versions` with their lineage, `changing` what is live, `trying` a version on traffic,
`following` all of it from a replica, and the `log` of decisions. COMPASS, section 3.3. It loads no model and knows no Ray.
"""

from compass_ray.serving.registry.changing import adopt, pin, promote, require_free, roll_back, unpin
from compass_ray.serving.registry.following import Catalogue, CatalogueReader, catalogue, served
from compass_ray.serving.registry.log import DECISIONS, append_decision, decisions
from compass_ray.serving.registry.names import TARGET_VERSION, AdapterName, Clock, RegistryError
from compass_ray.serving.registry.pointer import Canary, Live, look
from compass_ray.serving.registry.trying import canary, end_canary, end_shadow, shadow
from compass_ray.serving.registry.versions import AdapterEntry, Lineage, entries, fit_to_serve

__all__ = [
    "DECISIONS",
    "TARGET_VERSION",
    "AdapterEntry",
    "AdapterName",
    "Canary",
    "Catalogue",
    "CatalogueReader",
    "Clock",
    "Lineage",
    "Live",
    "RegistryError",
    "adopt",
    "append_decision",
    "canary",
    "catalogue",
    "decisions",
    "end_canary",
    "end_shadow",
    "entries",
    "fit_to_serve",
    "look",
    "pin",
    "promote",
    "require_free",
    "roll_back",
    "served",
    "shadow",
    "unpin",
]
