"""Failing object stores: retries, error messages, and no partial object that reads as complete.

The server speaks S3's protocol (moto), behind a test application that fails on request. Waits are counted, not waited
for.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from werkzeug.wsgi import get_input_stream

from compass_ray.artifacts import Artifact, ArtifactError, ConflictError, Identity, RunDir, files, filesystem
from compass_ray.artifacts.files import Files
from compass_ray.artifacts.retries import ATTEMPTS, MAX_WAIT_S, is_transient

IDENTITY = Identity("select", {}, {})
Fault = int | str | None
"""An HTTP status to answer with, ``reset`` for a connection that breaks, ``cut`` for half of the reply, None for none."""
Plan = Callable[[str, str], Fault]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class FaultyS3:
    """The S3 server behind faults."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self.plan: Plan = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        self.seen.append((method, path))
        fault = self.plan(method, path)
        if fault == "reset":
            _break(environ)
        if isinstance(fault, int):
            get_input_stream(environ).read()
            start_response(f"{fault} on request", [("Content-Length", "0")])
            return [b""]
        reply = b"".join(self._app(environ, start_response))
        return [reply[: len(reply) // 2] if fault == "cut" else reply]

    def fail(self, *faults: Fault, when: str = r"(PUT|POST) ") -> None:
        """Fail the first requests that match, one fault after the other, then no more."""
        left = list(faults)

        def plan(method: str, path: str) -> Fault:
            return left.pop(0) if left and re.match(when, f"{method} {path}") else None

        self.plan = plan

    def always(self, fault: Fault, when: str = r"(PUT|POST) ") -> None:
        self.plan = lambda method, path: fault if re.match(when, f"{method} {path}") else None


def _break(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


@pytest.fixture(scope="module")
def server(moto_s3: Any) -> Iterator[FaultyS3]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = FaultyS3()
    yield server
    server.stop()


@pytest.fixture
def faulty(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> FaultyS3:
    """The server without faults yet, and a client without its own retries."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setattr(filesystem, "_AMAZON_ATTEMPTS", 1)
    server.plan = lambda method, path: None
    server.seen.clear()
    return server


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 accepts no smaller part than 5 MiB."""
    monkeypatch.setattr(files, "_CHUNK", 10 << 20)


@pytest.fixture
def naps() -> list[float]:
    """Seconds of every wait."""
    return []


@pytest.fixture
def artifact(faulty: FaultyS3, s3_uri: str, naps: list[float]) -> Artifact:
    run = RunDir(s3_uri)
    return Artifact(run.filesystem, f"{run.path}/pool", "pool", sleep=naps.append)


@pytest.mark.parametrize("fault", [500, 503, 429, "reset"])
def test_an_upload_that_fails_twice_succeeds(faulty: FaultyS3, artifact: Artifact, naps: list[float], fault: Fault) -> None:
    faulty.fail(fault, fault)
    artifact.store_bytes("rows", b"complete")
    assert artifact.read_bytes("rows") == b"complete"
    assert len(naps) == 2
    assert all(0 <= nap <= 2 * 2**n for n, nap in enumerate(naps))


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_fails_at_its_end_is_repeated(faulty: FaultyS3, artifact: Artifact, naps: list[float]) -> None:
    """The parts are uploaded; only the last request, which completes the object, fails."""
    faulty.fail(500, "reset", when=r"POST .*uploadId=")
    artifact.store_bytes("rows", bytes(15 << 20))
    assert artifact.read_bytes("rows") == bytes(15 << 20)
    assert len(naps) == 2


def test_a_store_that_never_answers_is_reported_with_the_remedy(faulty: FaultyS3, artifact: Artifact, naps: list[float]) -> None:
    faulty.always(503)
    with pytest.raises(ArtifactError, match=rf"pool/rows: the store failed in {ATTEMPTS} attempts .*503.*run again") as raised:
        artifact.store_bytes("rows", b"complete")
    assert raised.value.__suppress_context__
    assert len(naps) == ATTEMPTS - 1
    assert max(naps) <= MAX_WAIT_S
    faulty.plan = lambda method, path: None
    assert not artifact.exists("rows")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_reported_without_retries(faulty: FaultyS3, artifact: Artifact, naps: list[float], status: int) -> None:
    faulty.always(status, when="")
    for act in (lambda: artifact.store_bytes("rows", b""), artifact.manifest, artifact.files, lambda: artifact.exists("rows")):
        with pytest.raises(ArtifactError, match=r"the store refused the request .*AWS_ACCESS_KEY_ID"):
            act()
    assert naps == []


def test_a_missing_bucket_is_reported_without_retries(faulty: FaultyS3, naps: list[float]) -> None:
    run = RunDir("s3://no-such-bucket/run")
    artifact = Artifact(run.filesystem, f"{run.path}/pool", "pool", sleep=naps.append)
    for act in (lambda: artifact.store_bytes("rows", b"1"), lambda: artifact.begin(IDENTITY)):
        with pytest.raises(ArtifactError, match=r"bucket 'no-such-bucket' does not exist .*create it or correct --run"):
            act()
    assert naps == []


def test_reading_listing_and_deleting_are_retried(faulty: FaultyS3, artifact: Artifact, naps: list[float]) -> None:
    writer = artifact.begin(IDENTITY)
    writer.write_table("rows.parquet", pa.table({"row_id": ["a"]}))
    made = writer.publish()
    for number, act in enumerate(
        (artifact.manifest, artifact.files, artifact.verify, lambda: artifact.read_table("rows.parquet"), artifact.remove), 1
    ):
        faulty.fail(503, when="")
        act()
        assert len(naps) == number
    assert artifact.manifest() is None
    assert made.outputs[0].rows == 1


def test_a_truncated_response_is_never_read_as_complete(faulty: FaultyS3, artifact: Artifact, naps: list[float]) -> None:
    data = np.random.default_rng(0).bytes(100_000)
    artifact.store_bytes("rows", data)
    faulty.fail("cut", "cut", when=r"GET .*rows")
    assert artifact.read_bytes("rows") == data
    faulty.always("cut", when=r"GET .*rows")
    with pytest.raises(ArtifactError, match="the store failed"):
        artifact.read_bytes("rows")


@pytest.mark.usefixtures("small_parts")
def test_large_files_go_up_in_parts(faulty: FaultyS3, artifact: Artifact, tmp_path: Path, naps: list[float]) -> None:
    data = np.random.default_rng(0).bytes(25 << 20)
    (tmp_path / "shard").write_bytes(data)
    faulty.fail(500, when=r"PUT .*partNumber=2")
    artifact.store_file("shard", tmp_path / "shard")
    assert {"partNumber=1", "partNumber=2", "partNumber=3"} <= set(re.findall(r"partNumber=\d", str(faulty.seen)))
    assert len(naps) == 1
    [output] = artifact.outputs()
    assert artifact.read_bytes("shard") == data
    assert Files(artifact.filesystem).sha256(f"{artifact.path}/shard") == output.sha256


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_never_arrives_leaves_what_was_there(faulty: FaultyS3, artifact: Artifact, tmp_path: Path) -> None:
    artifact.store_bytes("shard", b"before")
    (tmp_path / "shard").write_bytes(bytes(15 << 20))
    faulty.always(500, when=r"PUT .*partNumber=2")
    with pytest.raises(ArtifactError, match="the store failed"):
        artifact.store_file("shard", tmp_path / "shard")
    assert artifact.read_bytes("shard") == b"before"


def test_an_interrupted_upload_leaves_no_object(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a stream publishes what was sent so far, and a stream cannot be discarded."""

    class Interrupted:
        def __init__(self) -> None:
            self.left = [bytes(16 << 20), KeyboardInterrupt()]

        def seek(self, to: int) -> None: ...

        def read(self, size: int) -> bytes:
            if isinstance(found := self.left.pop(0), BaseException):
                raise found
            return found

    with pytest.raises(KeyboardInterrupt):
        Files(artifact.filesystem)._put(f"{artifact.path}/shard", Interrupted())  # type: ignore[arg-type]
    assert not artifact.exists("shard")


def test_publishing_does_not_read_written_files_again(faulty: FaultyS3, artifact: Artifact) -> None:
    writer = artifact.begin(IDENTITY)
    writer.write_table("rows.parquet", pa.table({"row_id": ["a", "b"]}))
    writer.write_array("centroids.npy", np.zeros((2, 2)))
    faulty.seen.clear()
    writer.publish()
    read = [path for method, path in faulty.seen if method == "GET" and ("rows" in path or "centroids" in path)]
    assert read == []
    assert artifact.verify().outputs[1].rows == 2


def test_a_crash_between_files_leaves_no_complete_artifact(faulty: FaultyS3, artifact: Artifact) -> None:
    writer = artifact.begin(IDENTITY)
    writer.write_bytes("one", b"1")
    faulty.always(503, when=r"(PUT|POST) .*manifest")
    with pytest.raises(ArtifactError):
        writer.publish()
    assert artifact.find_complete(IDENTITY) is None
    faulty.plan = lambda method, path: None
    puts = [path for method, path in faulty.seen if method in ("PUT", "POST")]
    assert "manifest.json" in puts[-1]
    assert writer.publish() == artifact.verify()


@pytest.mark.parametrize(
    ("message", "transient"),
    [
        ("AWS Error NETWORK_CONNECTION during UploadPart operation: curlCode: 7, Couldn't connect to server", True),
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.", True),
        ("AWS Error UNKNOWN (HTTP status 500) during CompleteMultipartUpload operation", True),
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted)", True),
        ("When testing for existence of bucket 'credentials-signature': AWS Error SLOW_DOWN during HeadBucket operation", True),
        ("AWS Error UNKNOWN during PutObject operation: Unable to parse ExceptionName: ExpiredToken Message: expired", False),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", False),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation", False),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation", False),
        ("AWS Error UNKNOWN (HTTP status 400) during PutObject operation", False),
        ("google::cloud::Status(PERMISSION_DENIED: Permanent error)", False),
    ],
)
def test_only_transient_errors_are_retried(message: str, transient: bool) -> None:
    assert is_transient(OSError(message)) == transient


# The live pointer


@pytest.fixture(params=["disk", "S3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("s3_uri"))


def test_a_pointer_is_replaced_only_if_it_is_unchanged(run: RunDir) -> None:
    one, two, three = ({"version": f"v000{n}", "history": [n]} for n in (1, 2, 3))
    run.replace_live("sw", one, None)
    run.replace_live("sw", two, one)
    for found in (None, one):
        with pytest.raises(ConflictError, match=r"another process changed .*sw\.json to .*v0002"):
            run.replace_live("sw", three, found)
    assert run.live("sw") == two
    run.clear_live("sw")
    with pytest.raises(ConflictError):
        run.replace_live("sw", three, two)
    run.clear_live("sw")


def test_of_racing_promoters_one_wins_and_the_others_get_a_conflict(run: RunDir) -> None:
    run.set_live("sw", {"version": "v0001"})
    start = threading.Barrier(4)

    def promote(number: int) -> int | None:
        found = run.live("sw")
        start.wait()
        try:
            run.replace_live("sw", {"version": f"by {number}"}, found)
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(4) as pool:
        [winner] = [number for number in pool.map(promote, range(4)) if number is not None]
    assert run.live("sw") == {"version": f"by {winner}"}


def test_a_put_with_a_lost_response_counts_as_done(faulty: FaultyS3, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(s3_uri)
    run.set_live("sw", {"version": "v0001"})
    app, lost = faulty._app, ["once"]

    def answer_lost(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        reply = b"".join(app(environ, start_response if not (lost and environ["REQUEST_METHOD"] == "PUT") else lambda *_: None))
        if lost and environ["REQUEST_METHOD"] == "PUT":
            lost.clear()
            _break(environ)
        return [reply]

    monkeypatch.setattr(faulty, "_app", answer_lost)
    run.replace_live("sw", {"version": "v0002"}, {"version": "v0001"})
    assert not lost
    assert run.live("sw") == {"version": "v0002"}


def test_a_refused_pointer_is_reported_with_the_remedy(faulty: FaultyS3, s3_uri: str) -> None:
    faulty.always(403, when="")
    with pytest.raises(ArtifactError, match=r"the store refused the request .*AWS_ACCESS_KEY_ID"):
        RunDir(s3_uri).replace_live("sw", {"version": "v0002"}, None)
