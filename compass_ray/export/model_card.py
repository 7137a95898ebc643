"""The model card of an export: a README for model hubs, and the same facts as JSON.

Key property: the card states the origin of the export and the result of the comparison. For licences it names only the
sources that they come from. Loads no model.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compass_ray import __version__
from compass_ray.artifacts import Manifest
from compass_ray.config import RunConfig
from compass_ray.export.parity import PROBES, Parity
from compass_ray.languages import get_language
from compass_ray.models.model_resolver import hub_id

FACTS = "compass_ray.json"
CARD = "README.md"


def write_card(
    folder: Path, config: RunConfig, language: str, version: str, manifest: Manifest, parity: Parity, *, merged: bool
) -> None:
    """Write ``README.md`` and ``compass_ray.json`` into the export's folder."""
    facts = {
        "language": language,
        "version": version,
        "kind": "merged model" if merged else "PEFT adapter",
        "adapter": config.train.adapter.kind,
        "base_model": config.train.base_model,
        "base_revision": config.train.revision,
        "base_identity": manifest.config.get("base_model"),
        "fingerprint": manifest.fingerprint,
        "trained_on": dict(manifest.inputs),
        "metrics": manifest.metrics,
        "finished": manifest.provenance.get("finished"),
        "compass_ray": __version__,
        "parity": asdict(parity),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False), "utf-8")
    (folder / CARD).write_text(
        f"---\n{_card_metadata(config, language, merged=merged)}\n---\n\n{_card_body(config, facts)}", "utf-8"
    )


def _card_metadata(config: RunConfig, language: str, *, merged: bool) -> str:
    """The card's YAML metadata for model hubs."""
    from huggingface_hub import ModelCardData

    base = hub_id(config.train.base_model)
    related: dict[str, Any] = {"base_model": base, "base_model_relation": "finetune" if merged else "adapter"} if base else {}
    data = ModelCardData(
        language=language,
        license="other",
        license_name="of-the-base-model-and-the-data",
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=["compass-ray", config.train.adapter.kind],
        **related,
    )
    return str(data.to_yaml()).strip()


def _card_body(config: RunConfig, facts: dict[str, Any]) -> str:
    parity, name = facts["parity"], get_language(facts["language"]).name
    sources = ", ".join(f"`{source.path}`" for source in config.pool.sources)
    return f"""# {name} ({facts["language"]}), {facts["version"]}

A {facts["kind"]} for {name}, trained by compass-ray {facts["compass_ray"]} on rows selected by COMPASS.

| | |
| --- | --- |
| base model | `{facts["base_model"]}`, {_revision(facts)} |
| adapter | {facts["adapter"]}, rank {config.train.adapter.r}, alpha {config.train.adapter.alpha} |
| version | {facts["version"]}, fingerprint `{facts["fingerprint"]}` |
| trained | {facts["finished"] or "unknown"} |
| training rows | {facts["metrics"].get("rows", "unknown")}, from {sources} |

## Load the model

```python
{_USAGE[facts["kind"]]}```

## Verification

The export was loaded as shown above and compared with the served adapter in {parity["dtype"]}, on {parity["positions"]} positions
of {len(PROBES)} prompts in nine scripts.

| | |
| --- | --- |
| largest difference between logits | {parity["difference"]:.1e} (tolerance {parity["tolerance"]:.1e}) |
| largest change that the adapter makes to a base logit | {parity["effect"]:.1e} |
| positions with the same most likely token | {parity["agreement"]:.1%} |

## Licence

These weights derive from the base model and were trained on the data named above. The licences of both apply. Read them before
you use or share the model. compass-ray itself is under Apache-2.0 and adds no terms.
"""


def _revision(facts: dict[str, Any]) -> str:
    return f"revision `{facts['base_revision']}`" if facts["base_revision"] else f"content `{facts['base_identity']}`"


_USAGE = {
    "merged model": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
    "PEFT adapter": """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
}
