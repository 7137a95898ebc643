"""Cloud Storage: artifacts against an emulator of its JSON interface, the live pointer against one of its XML interface.

The emulator runs in its own process, because pyarrow's client holds the interpreter while it opens a file.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs as pafs

from compass_ray.artifacts import ArtifactError, ConflictError, Identity, RunDir
from compass_ray.artifacts.cas_file import CompareAndSwapFile

IDENTITY = Identity("select", {}, {})
_EMULATOR = """
import sys
from http.server import ThreadingHTTPServer
from gcp_storage_emulator import server
server.server.HTTPServer = type("Threading", (ThreadingHTTPServer,), {"daemon_threads": True})
emulator = server.create_server("127.0.0.1", 0, in_memory=True)
emulator.start()
print(emulator._api._httpd.socket.getsockname()[1], flush=True)
sys.stdin.read()
emulator.stop()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-c", _EMULATOR]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.fixture
def run(address: str, tmp_path: Path) -> RunDir:
    pafs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=address, project_id="tests").create_dir("bucket")
    return RunDir(_uri("bucket", tmp_path.name, address))


def _uri(bucket: str, name: str, address: str) -> str:
    return f"gs://anonymous@{bucket}/{name}?scheme=http&endpoint_override={address}"


def test_an_artifact_is_written_read_verified_and_removed(run: RunDir) -> None:
    artifact = run.selection("compass", "sw")
    assert artifact.manifest() is None
    writer = artifact.begin(IDENTITY)
    writer.write_table("rows.parquet", pa.table({"row_id": ["a", "b"]}))
    writer.write_json("deep/allocation.json", {"a": "é"})
    writer.write_array("centroids.npy", np.arange(6.0).reshape(2, 3))
    assert artifact.find_complete(IDENTITY) is None
    made = writer.publish()
    assert made == artifact.verify() == artifact.find_complete(IDENTITY)
    assert {output.path: output.rows for output in made.outputs} == {
        "centroids.npy": None,
        "deep/allocation.json": None,
        "rows.parquet": 2,
    }
    assert artifact.read_table("rows.parquet")["row_id"].to_pylist() == ["a", "b"]
    assert np.array_equal(artifact.map_array("centroids.npy"), np.arange(6.0).reshape(2, 3))
    assert run.selection_names("sw") == ["compass"]
    artifact.begin(IDENTITY)
    assert artifact.manifest() is None
    assert artifact.files() == []


def test_a_large_file_arrives_complete(run: RunDir, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(20 << 20)
    (tmp_path / "shard").write_bytes(data)
    run.pool.store_file("shard", tmp_path / "shard")
    assert run.pool.read_bytes("shard") == data


def test_a_missing_bucket_is_reported_with_the_remedy(address: str) -> None:
    run = RunDir(_uri("no-such-bucket", "run", address))
    with pytest.raises(ArtifactError, match=r"bucket 'no-such-bucket' does not exist .*create it or correct --run"):
        run.pool.store_bytes("rows", b"1")


# The emulator ignores conditions, so this server has the part of the XML interface that a pointer needs.


class _Objects(BaseHTTPRequestHandler):
    """Objects by path, each with its generation."""

    protocol_version = "HTTP/1.1"
    kept: ClassVar[dict[str, tuple[int, bytes]]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        generation, data = self.kept.get(self.path, (0, b""))
        self._answer(200 if generation else 404, generation, data)

    def do_PUT(self) -> None:
        data, asked = self.rfile.read(int(self.headers["Content-Length"])), self.headers.get("x-goog-if-generation-match")
        with self.lock:
            generation = self.kept.get(self.path, (0, b""))[0]
            met = asked is None or int(asked) == generation
            if met:
                self.kept[self.path] = (generation + 1, data)
        self._answer(200 if met else 412, generation + 1, b"")

    def _answer(self, status: int, generation: int, data: bytes) -> None:
        self.send_response(status)
        for name, value in {"ETag": f'"{generation}"', "x-goog-generation": generation, "Content-Length": len(data)}.items():
            self.send_header(name, str(value))
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def pointer(run: RunDir) -> Iterator[CompareAndSwapFile]:
    _Objects.kept.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Objects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = _uri("bucket", "run", f"127.0.0.1:{server.server_port}")
    yield CompareAndSwapFile(run._files, "bucket/run/serving/live/sw.json", uri)
    server.shutdown()
    server.server_close()


def test_a_pointer_is_replaced_only_if_it_is_unchanged(pointer: CompareAndSwapFile) -> None:
    pointer.compare_and_swap({"version": "v0001"}, None)
    pointer.compare_and_swap({"version": "v0002"}, {"version": "v0001"})
    for found in (None, {"version": "v0001"}):
        with pytest.raises(ConflictError, match="v0002"):
            pointer.compare_and_swap({"version": "v0003"}, found)


def test_of_racing_promoters_one_wins_and_the_others_get_a_conflict(pointer: CompareAndSwapFile) -> None:
    def promote(number: int) -> bool:
        try:
            pointer.compare_and_swap({"version": str(number)}, None)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(promote, range(4))) == 1
