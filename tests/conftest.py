"""What every test may ask for: one Ray cluster, one S3 server, the shared data; and the order they run in.

Nothing here starts until a test asks for it, so the unit tests never pay for Ray. No test may reach a hub.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports a hub client, and inherited by every process that a test starts.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is about time: on a machine that is busy any example may take long.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_TESTS = Path(__file__).parent
_FOLDERS = ("unit", "ray", "e2e", "cluster", "gpu", "vllm")
"""Folders of tests in the order they run: what is fast and says most comes first."""
_FOLDER_VARIABLES = {
    "shared_data": ("COMPASS_SHARED_DATA", "shared data"),
    "real_models": ("COMPASS_REAL_MODELS", "pretrained models"),
}
"""Environment variable and content of the folder that each marker needs."""


_RAY_ENVIRONMENT = {
    # A command that joins would have four workers started for it, which cost more than what it asks of them.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # One process less for each Train run; nothing here is preempted.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True)
class S3:
    """A local S3 server; the environment already points pyarrow and boto at it."""

    endpoint: str
    """Such as ``http://127.0.0.1:43210``."""
    bucket: str


def _folder(item: pytest.Item) -> str:
    """Name of the test's folder below tests; a doctest stands with the unit tests."""
    return item.path.relative_to(_TESTS).parts[0] if item.path.is_relative_to(_TESTS) else "unit"


def _rank(item: pytest.Item) -> int:
    folder = _folder(item)
    return _FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS)


def _reason_to_skip(item: pytest.Item) -> str | None:
    for marker, (variable, content) in _FOLDER_VARIABLES.items():
        if item.get_closest_marker(marker) and not os.environ.get(variable):
            return f"{variable} does not name the folder of {content}"
    if item.get_closest_marker("vllm") and not find_spec("vllm"):
        return "vLLM is not installed: make test-vllm runs this in an environment of its own"
    if item.get_closest_marker("gpu"):
        import torch

        return None if torch.cuda.is_available() else "no CUDA device"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, so that ``-m`` sees the marks, and put fast folders first."""
    for item in items:
        if _folder(item) in ("ray", "e2e", "cluster", "gpu", "vllm"):
            item.add_marker(_folder(item))
    items.sort(key=_rank)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what this machine does not have."""
    if reason := _reason_to_skip(item):
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def unit_tests_start_no_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """The suite's Ray would not be started after one of theirs, which has other sizes."""
    yield
    ray = sys.modules.get("ray")
    if ray and _folder(request.node) == "unit" and ray.is_initialized():
        ray.shutdown()
        pytest.fail("a unit test started Ray; it belongs into tests/ray")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data in the layouts of the hub data sets."""
    return _named_folder("shared_data")


@pytest.fixture(scope="session")
def real_models() -> Path:
    """Folder of the pretrained models ``gemma-3-270m``, ``smollm2-135m-instruct``, ``e5-small`` and ``lid.176.ftz``."""
    return _named_folder("real_models")


def _named_folder(marker: str) -> Path:
    variable, content = _FOLDER_VARIABLES[marker]
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name the folder of {content}")
    path = Path(folder)
    assert path.is_dir(), f"{variable} is {folder!r}, which is no folder: correct it or unset it"
    return path


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3]:
    """An S3 server on the loopback interface for the whole suite; use `s3_uri` for a place of one's own."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _s3_environment(endpoint).items():
            patch.setenv(name, value)
        yield S3(endpoint=endpoint, bucket=_bucket(f"{host}:{port}", "compass-tests"))
    server.stop()


def _s3_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        # Without this the client asks a cloud's metadata address first, and waits for it.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _bucket(address: str, name: str) -> str:
    from pyarrow.fs import S3FileSystem

    # Of its ways in, pyarrow reads AWS_ENDPOINT_URL in `FileSystem.from_uri` only.
    S3FileSystem(endpoint_override=address, scheme="http", allow_bucket_creation=True).create_dir(name)
    return name


@pytest.fixture
def s3_uri(moto_s3: S3, tmp_path: Path) -> str:
    """An empty place on the S3 server, a different one for each test."""
    return f"s3://{moto_s3.bucket}/{tmp_path.name}"


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """The suite's one local Ray: four logical CPUs, so that pools and trainers fit anywhere."""
    if any("moto_s3" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("moto_s3")  # workers inherit the environment that Ray is started with
    os.environ.update(_RAY_ENVIRONMENT)
    from compass_ray import ray_session
    from compass_ray.config import Resources

    ray_session.start(Resources(cpus=4))
    yield
    ray_session.stop()
