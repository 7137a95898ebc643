"""The Dockerfile is valid, other files name only its stages, and its steps install a working environment.

There is no Docker here: a linter reads the file, and the slow test follows the CPU image's steps in a folder of its own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cluster_configs.config_files import CONFIGS, ROOT
from tests.unit.cluster_configs.dockerfile import Stage, Step, chain, read

DOCKERFILE = CONFIGS / "Dockerfile"
STAGES = read(DOCKERFILE)
IMAGE = "REGISTRY/compass-ray:"
PINNED = ("-c constraints.txt", "--require-hashes -r requirements.lock", "-c requirements-vllm.txt", "--no-deps /tmp/wheels/")
"""One of them is in every step that installs packages."""


def _runs(target: str) -> list[str]:
    return [step.rest for stage in chain(STAGES, target) for step in stage.steps if step.word == "RUN"]


def test_the_linter_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "--format", "json", DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == []
    assert done.returncode == 0


def test_no_step_is_written_twice() -> None:
    runs = [step.rest for stage in STAGES.values() for step in stage.steps if step.word == "RUN"]
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("target", ["cpu", "gpu", "vllm"])
def test_an_image_has_the_pinned_python_and_does_not_run_as_root(target: str) -> None:
    stages = chain(STAGES, target)
    assert stages[0].base.startswith("python:3.11-")
    assert [step.rest for step in stages[-1].steps if step.word == "USER"] == ["1000"]
    assert any("useradd" in run and "--uid 1000" in run for run in _runs(target))


@pytest.mark.parametrize("target", ["cpu", "gpu", "vllm"])
def test_every_package_is_pinned_and_from_no_named_index(target: str) -> None:
    installs = [run for run in _runs(target) if "pip install" in run]
    assert installs
    for run in installs:
        assert any(pinned in run for pinned in PINNED), run
        assert not re.search(r"https?:|--(?:extra-)?index-url|--find-links", run)


def test_only_the_gpu_image_has_gpu_packages() -> None:
    assert any("[gpu" in run for run in _runs("gpu"))
    assert not any("[gpu" in run or "deepspeed" in run.lower() for run in _runs("cpu"))


def test_the_files_name_existing_images() -> None:
    texts = {path: path.read_text("utf-8") for path in [DOCKERFILE, CONFIGS / "README.md", *CONFIGS.rglob("*.yaml")]}
    named = {path: set(re.findall(rf"{IMAGE}(\w+)", text)) for path, text in texts.items()}
    assert set().union(*named.values()) == {"cpu", "gpu", "vllm"} <= STAGES.keys()
    assert [path for path, text in texts.items() if re.search(r"^\s*image: (?!REGISTRY)", text, re.MULTILINE)] == []
    for path in (path for path in texts if path.name in ("aws-gpu.yaml", "gcp-gpu.yaml") or "\nkind: Ray" in texts[path]):
        assert named[path] == {"cpu", "gpu"} | ({"vllm"} if path.stem.endswith("-vllm") else set()), path


def test_the_image_copies_only_what_a_checkout_has() -> None:
    steps = [step for stage in STAGES.values() for step in stage.steps if step.word == "COPY" and "--from" not in step.rest]
    names = {name for step in steps for name in step.rest.split()[:-1]}
    allowed = (CONFIGS / "Dockerfile.dockerignore").read_text("utf-8").split()
    assert allowed[0] == "*"
    assert {f"!{name.partition('/')[0]}" for name in names} == {line for line in allowed if line.startswith("!")}
    assert all((ROOT / name).exists() for name in names)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the images have Python 3.11")
def test_the_cpu_image_s_steps_make_an_environment_that_works(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "usr"], check=True)
    environment = _follow("cpu", tmp_path)
    for command in ("compass-ray --version", "python -m jobs.adapt --help"):
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path / "home/ray", env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    found = subprocess.run(
        ["python", "-c", "import compass_ray; print(compass_ray.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(tmp_path / "opt/compass_ray"))


def _follow(target: str, root: Path) -> dict[str, str]:
    """Run a stage's steps below a folder, without those of the distribution's packages; returns the environment."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG") or name.startswith("PIP_")}
    environment = {**kept, "PATH": f"{root / 'usr/bin'}:{os.environ['PATH']}"}
    here = root
    for step in (step for stage in chain(STAGES, target) for step in stage.steps):
        if step.word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in step.rest.split())
            environment |= {name: f"{root}{value}" if value.startswith("/") else value for name, value in pairs.items()}
        elif step.word == "WORKDIR":
            here = root / step.rest.lstrip("/")
            here.mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            _copy(step, here)
        elif step.word == "RUN" and not step.rest.startswith("apt-get"):
            subprocess.run(["bash", "-euc", step.rest], cwd=here, env=environment, check=True, timeout=1800)
    return environment


_IGNORED = shutil.ignore_patterns("__pycache__")


def _copy(step: Step, here: Path) -> None:
    if step.rest.startswith("--from="):
        stage: Stage = STAGES[step.rest.split()[0].removeprefix("--from=")]
        for inner in stage.steps:
            source, target = inner.rest.split()
            shutil.copytree(ROOT / source, here / target.lstrip("/"), dirs_exist_ok=True, ignore=_IGNORED)
        return
    *names, target = step.rest.split()
    (here / target).mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(ROOT / name, here / target)
