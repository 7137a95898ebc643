"""Check that the driver and every running machine of the cluster can write to the run directory.

Key property: shared access is tested, not inferred from the path (see `storage_probe`). Machines that start later cannot be
tested, so a local path is reported with a note.
"""

from __future__ import annotations

from pyarrow import fs as pafs

from compass_ray.preflight.check_result import CheckContext, CheckResult


def check_storage(context: CheckContext) -> list[CheckResult]:
    """Report access to the run directory from all probed machines."""
    probes = context.environment.probes
    failed = [probe for probe in probes if probe.error]
    separate = [probe.machine for probe in probes if not probe.sees_driver]
    uri = context.run.shown_uri
    if failed:
        found = "; ".join(f"{uri} cannot be written from {probe.machine}: {probe.error}" for probe in failed)
        known = " and ".join(dict.fromkeys(probe.remedy for probe in failed if probe.remedy))
        return [
            CheckResult("storage", found, known or "use another --run, or give the machines access to this one", blocking=True)
        ]
    if separate:
        found = f"{', '.join(separate)} cannot see files that the driver writes to {uri}: the path is on a local disk there"
        remedy = "set --run to a URI such as s3://bucket/run, or to a folder that all machines mount"
        return [CheckResult("storage", found, remedy, blocking=True)]
    machines = len({probe.machine for probe in probes})
    return [
        _storage_result(context, f"{uri} is writable" + (f" from {machines} machines, shared by all" if machines > 1 else ""))
    ]


def _storage_result(context: CheckContext, found: str) -> CheckResult:
    local = isinstance(context.run.filesystem, pafs.LocalFileSystem)
    capacity = context.environment.capacity
    can_grow = capacity.types is None or any(n != 0 for n in capacity.startable_nodes().values())
    if context.environment.is_cluster and local and can_grow:
        remedy = "no action if all of them mount that folder; otherwise set --run to a URI such as s3://bucket/run"
        return CheckResult("storage", f"{found}; on machines that start later the path may be a local disk", remedy)
    return CheckResult("storage", found)


def check_versions_alike(context: CheckContext) -> list[CheckResult]:
    """Check that the machines of a cluster have the driver's package versions."""
    driver, *others = context.environment.probes
    differing = [
        f"{other.machine} has {name} {other.versions[name]}, the driver has {version}"
        for other in others
        for name, version in driver.versions.items()
        if other.versions.get(name, version) != version
    ]
    if not differing:
        return []
    return [CheckResult("machines", "; ".join(differing), "start all machines from one image", blocking=False)]
