"""Verification of a run: every file of every complete artifact compared with its manifest, by size and SHA-256.

Key property: it reads each listed file completely and writes nothing. Files outside complete artifacts, such as the monitor's,
have no manifest and are not compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from compass_ray.artifacts.artifact import Artifact
from compass_ray.artifacts.artifact_files import IN_PROGRESS_FILE
from compass_ray.artifacts.atomic_write import PARTIAL
from compass_ray.artifacts.errors import ArtifactError, MissingFileError
from compass_ray.artifacts.manifest import MANIFEST, Manifest, Output
from compass_ray.artifacts.run_dir import RunDir

_THREADS = 8
"""Maximum number of files that are hashed at the same time."""


@dataclass(frozen=True)
class FileProblem:
    """One file that differs from its manifest, and what to do."""

    kind: Literal["damaged", "missing", "extra"]
    artifact: str
    """Path of the artifact in the run."""
    file: str
    """Path of the file in the artifact."""
    message: str


@dataclass(frozen=True)
class RunVerification:
    """Number of compared artifacts, files and bytes, and every problem, sorted by path."""

    artifacts: int
    files: int
    bytes: int
    problems: tuple[FileProblem, ...]

    @property
    def has_damaged_manifest(self) -> bool:
        """Whether a manifest cannot be read."""
        return any(problem.kind == "damaged" and problem.file == MANIFEST for problem in self.problems)

    def describe(self) -> list[str]:
        """One line for each problem, then the totals."""
        lines = [f"{problem.kind}: {problem.message}" for problem in self.problems]
        bad = {0: "no problem", 1: "1 problem"}.get(len(self.problems), f"{len(self.problems)} problems")
        return [*lines, f"verified {self.files} files ({self.bytes} bytes) of {self.artifacts} artifacts: {bad}"]


def verify_run(run: RunDir) -> RunVerification:
    """Compare all files of all complete artifacts of a run with their manifests."""
    listed = run.list_files()
    names = sorted(path.removesuffix(f"/{MANIFEST}") for path in listed if path.endswith(f"/{MANIFEST}"))
    problems: list[FileProblem] = []
    manifests = {name: manifest for name in names if (manifest := _read_manifest(run.artifact(name), problems))}
    work = [(run.artifact(name), output) for name, manifest in manifests.items() for output in manifest.outputs]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        problems += [found for found in threads.map(lambda each: _compare(*each), work) if found]
    problems += _find_extra(run, listed, names, manifests)
    return RunVerification(
        artifacts=len(names),
        files=len(work),
        bytes=sum(output.bytes for _, output in work),
        problems=tuple(sorted(problems, key=lambda problem: (problem.artifact, problem.file))),
    )


def _read_manifest(artifact: Artifact, problems: list[FileProblem]) -> Manifest | None:
    try:
        return artifact.manifest()
    except ArtifactError as error:
        problems.append(FileProblem("damaged", artifact.name, MANIFEST, str(error)))
        return None


def _compare(artifact: Artifact, output: Output) -> FileProblem | None:
    try:
        artifact.compare(output)
    except MissingFileError as error:
        return FileProblem("missing", artifact.name, output.path, str(error))
    except ArtifactError as error:
        return FileProblem("damaged", artifact.name, output.path, str(error))
    return None


def _find_extra(
    run: RunDir, listed: Mapping[str, int], names: list[str], manifests: Mapping[str, Manifest]
) -> Iterator[FileProblem]:
    """Files in the folder of a complete artifact that its manifest does not list."""
    folders = set(names)
    known = {f"{name}/{output.path}" for name, manifest in manifests.items() for output in manifest.outputs}
    for path in sorted(listed.keys() - known):
        name = _owner(path, folders)
        file = path.removeprefix(f"{name}/")
        if name in manifests and file not in (MANIFEST, IN_PROGRESS_FILE) and not file.endswith(PARTIAL):
            message = f"{run.artifact(name).path}/{file} is not in the manifest; remove this file if no other program needs it"
            yield FileProblem("extra", name, file, message)


def _owner(path: str, folders: set[str]) -> str:
    """The innermost artifact that holds a path; empty if none does."""
    parts = path.split("/")
    return next((name for i in range(len(parts) - 1, 0, -1) if (name := "/".join(parts[:i])) in folders), "")
