"""Export the atlas as files in the folder layout of the hub data sets.

Key property: `datasets.load_dataset` reads the folders like `aya_dataset` and `Global-MMLU`. An export has no manifest; it
is not an artifact of a run.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from compass_ray.sources.atlas.rows import atlas_guide, atlas_pool, atlas_test
from compass_ray.sources.atlas.splits import FULL, AtlasSize

_SHARD = "00000-of-00001.parquet"


def export(directory: Path, size: AtlasSize = FULL) -> None:
    """Write `aya_dataset/` and `global_mmlu/` under `directory`, made if missing; files there are replaced."""
    pool = directory / "aya_dataset"
    _write(atlas_pool(size), pool / "data" / f"train-{_SHARD}")
    _card(pool, [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}])
    items = directory / "global_mmlu"
    for code in size.languages:
        _write(atlas_guide(code, size), items / code / f"dev-{_SHARD}")
        _write(atlas_test(code, size), items / code / f"test-{_SHARD}")
    _card(items, [_item_config(code) for code in size.languages])


def _item_config(code: str) -> dict[str, object]:
    files = [{"split": split, "path": f"{code}/{split}-*.parquet"} for split in ("dev", "test")]
    return {"config_name": code, "data_files": files}


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _card(directory: Path, configs: list[dict[str, object]]) -> None:
    header = yaml.safe_dump({"configs": configs}, sort_keys=False)
    (directory / "README.md").write_text(f"---\n{header}---\nThe compass_ray atlas in the layout of {directory.name}.\n")
