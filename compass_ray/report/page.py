"""Builds the page of a run: ``index.html`` with everything in it, and its pictures as PNG beside it.

Key property: the page needs no other file and asks nothing of the network, and its fingerprint is made of
the fingerprints of what it shows, so it is made anew exactly when the run, the settings or this package
changed. It is made of whatever the run holds at the moment and names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

import jinja2
from markupsafe import Markup

from compass_ray import __version__
from compass_ray.artifacts import (
    FULL_FINETUNING,
    Artifact,
    Attempt,
    Identity,
    Manifest,
    RunDir,
    clustering_keys,
    content_hash,
    read_attempts,
)
from compass_ray.config import RunConfig
from compass_ray.report.blocks import ReportSection
from compass_ray.report.comparison import Comparison, compare
from compass_ray.report.run_reader import METHODS, RunReader, is_version
from compass_ray.report.sections import accuracy, added_rows, gaps, reproducibility, timing, traffic, training_curves

PAGE = "index.html"
_MONITOR = ("checks.jsonl", "decisions.jsonl")
_SOURCES = (".py", ".j2", ".css")


def build_report(run: RunDir, config: RunConfig) -> Manifest:
    """Make the report of a run, or find it made already of the very same things."""
    if found := find_current(run, config):
        return found
    evidence = RunReader(run)
    manifests = shown_manifests(evidence, config)
    identity = _identity(run, config, manifests)
    comparison = compare(run, config)
    sections = _sections(evidence, config, comparison, manifests)
    writer = run.report.begin(identity)
    for picture in (p for section in sections for p in section.pictures):
        writer.write_bytes(picture.file, picture.data)
    writer.write_bytes(PAGE, render(run.path.rsplit("/", 1)[-1], sections).encode())
    return writer.publish({"pictures": sum(len(s.pictures) for s in sections)})


def find_current(run: RunDir, config: RunConfig) -> Manifest | None:
    """The report of a run if it was made of the very things that stand now. Looks at manifests and the monitor's records."""
    identity, found = _identity(run, config, shown_manifests(RunReader(run), config)), run.report.manifest()
    return found if found and found.fingerprint == identity.fingerprint else None


def render(name: str, sections: list[ReportSection], *, of: str = "run") -> str:
    """The page of a run, or of what ``of`` says, as HTML; all that sections hold is escaped."""
    folder = resources.files("compass_ray.report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((folder / "page.html.j2").read_text("utf-8"))
    style = Markup((folder / "page.css").read_text("utf-8"))
    return template.render(of=of, name=name, sections=sections, style=style, version=__version__)


def shown_manifests(evidence: RunReader, config: RunConfig) -> dict[str, Manifest]:
    """Every finished artefact that the page shows, by its name, in the order of the stages."""
    found = ((artifact.name, artifact.manifest()) for artifact in _artifacts(evidence, config))
    return {name: manifest for name, manifest in found if manifest}


def _artifacts(evidence: RunReader, config: RunConfig) -> list[Artifact]:
    run, codes = evidence.run, config.languages
    versions = {code: evidence.versions(code) for code in codes}
    decided = {(d.language, d.to_version) for d in evidence.decisions if d.to_version}
    updated = sorted(decided | {(code, v) for code in codes for v in versions[code]})
    return [
        run.pool,
        *(run.guide(code) for code in codes),
        run.embeddings,
        *(run.guide_embeddings(code) for code in codes),
        *(run.clustering(whose) for whose in clustering_keys(config)),
        *(run.budget(code) for code in codes),
        *(run.selection(method, code) for code in codes for method in config.select.methods),
        *(run.adapter(code, version) for code in codes for version in versions[code]),
        *(run.full_model(code, FULL_FINETUNING) for code in codes),
        *(run.evaluation(name, code) for code in codes for name in dict.fromkeys([*METHODS, *versions[code]])),
        *(run.selection(version, code) for code, version in updated if is_version(version)),
        *(run.update(code, version) for code, version in updated),
        *(run.change(code, version) for code, version in updated),
    ]


def _identity(run: RunDir, config: RunConfig, manifests: Mapping[str, Manifest]) -> Identity:
    inputs = {name: manifest.fingerprint for name, manifest in manifests.items()}
    inputs |= {f"monitor/{f}": content_hash((run.read_monitor(f) or b"").decode("utf-8", "replace")) for f in _MONITOR}
    inputs |= {f"live/{code}": content_hash(str(run.live(code))) for code in config.languages}
    inputs["attempts"] = content_hash(*(attempt.model_dump_json() for attempt in _attempts(run)))
    settings = {**config.model_dump(mode="json", exclude={"resources"}), "page": _source_hash()}
    return Identity("report", settings, inputs)


def _attempts(run: RunDir) -> list[Attempt]:
    """The times kept of a run, but for those of making this page: with them it would never be up to date."""
    found = (a.model_copy(update={"stages": tuple(t for t in a.stages if t.stage != "report")}) for a in read_attempts(run))
    return [attempt for attempt in found if attempt.stages]


def _source_hash() -> str:
    """A hash of this package's own text, so that another version of it makes the page anew."""
    return content_hash(*(file.read_text("utf-8") for file in _walk(resources.files("compass_ray.report"))))


def _walk(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _walk(entry)
        elif entry.name.endswith(_SOURCES):
            found.append(entry)
    return found


def _sections(
    evidence: RunReader, config: RunConfig, comparison: Comparison, manifests: Mapping[str, Manifest]
) -> list[ReportSection]:
    codes = config.languages
    return [
        accuracy.section(evidence, codes, comparison),
        gaps.section(evidence, codes),
        added_rows.section(evidence, codes),
        training_curves.section(evidence, codes, config.serve.method),
        traffic.section(evidence, codes),
        timing.section(config, _attempts(evidence.run), manifests),
        reproducibility.section(evidence, config, manifests),
    ]
