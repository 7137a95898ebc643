"""Whether the run directory can be written, from here and from every machine of a cluster that is up.

Key property: whether machines meet in the run directory is tried, not guessed from its name (see `witness`). Machines that
are not up yet cannot be asked; a path on a disk is then told as such.
"""

from __future__ import annotations

from pyarrow import fs as pafs

from compass_ray.preflight.check_result import CheckContext, CheckResult


def check_storage(asked: CheckContext) -> list[CheckResult]:
    """The run directory, from wherever it was tried."""
    failed = [w for w in asked.environment.probes if w.error]
    blind = [w.machine for w in asked.environment.probes if not w.sees_driver]
    uri = asked.run.uri
    if failed:
        found = "; ".join(f"{uri} cannot be written from {w.machine}: {w.error}" for w in failed)
        return [CheckResult("storage", found, "give another --run, or the machines access to this one", blocking=True)]
    if blind:
        found = f"{', '.join(blind)} cannot see what the driver writes to {uri}: each has a disk of its own there"
        return [
            CheckResult("storage", found, "give --run a URI such as s3://bucket/run, or a folder that all mount", blocking=True)
        ]
    many = len({w.machine for w in asked.environment.probes})
    return [
        _storage_result(asked, f"{uri} can be written" + (f" from {many} machines, which see one another" if many > 1 else ""))
    ]


def _storage_result(asked: CheckContext, found: str) -> CheckResult:
    local = isinstance(asked.run.filesystem, pafs.LocalFileSystem)
    more = asked.environment.capacity.types is None or any(n != 0 for n in asked.environment.capacity.startable_nodes().values())
    if asked.environment.is_cluster and local and more:
        remedy = "fine if that folder is mounted on all of them; else give --run a URI such as s3://bucket/run"
        return CheckResult("storage", f"{found}; machines that start later may have a disk of their own there", remedy)
    return CheckResult("storage", found)


def check_versions_alike(asked: CheckContext) -> list[CheckResult]:
    """Whether the machines of a cluster have the driver's versions."""
    driver, *others = asked.environment.probes
    differing = [
        f"{other.machine} has {name} {other.versions[name]}, the driver {version}"
        for other in others
        for name, version in driver.versions.items()
        if other.versions.get(name, version) != version
    ]
    if not differing:
        return []
    return [CheckResult("machines", "; ".join(differing), "start all machines from one image", blocking=False)]
