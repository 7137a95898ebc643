"""What the tests of this folder lean on: workers run functions of theirs and reach the S3 server."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _rows_at(uri: str) -> int:
    from pyarrow import parquet

    return int(parquet.read_table(uri).num_rows)


def test_workers_read_what_the_driver_wrote_to_s3(s3_uri: str) -> None:
    import pyarrow as pa
    import ray
    from pyarrow import parquet

    uri = f"{s3_uri}/rows.parquet"
    parquet.write_table(pa.table({"row_id": list(range(7))}), uri)
    assert ray.get(ray.remote(_rows_at).options(num_cpus=0.5).remote(uri)) == 7


def test_the_cluster_has_four_logical_cpus_whatever_the_machine_has() -> None:
    import ray

    assert ray.cluster_resources()["CPU"] == 4
