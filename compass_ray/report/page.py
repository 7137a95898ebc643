"""Builder of the report page: a self-contained ``index.html``, with its plots also as SVG files next to it.

Key property: the page needs no other file and no network. Its fingerprint covers the fingerprints of everything it shows, so
it is rebuilt exactly when the run, the settings or this package change. It works on an incomplete run and names what is
missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

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
from compass_ray.report.blocks import ReportHeader, ReportSection
from compass_ray.report.comparison import Comparison, compare
from compass_ray.report.header import build_header
from compass_ray.report.run_reader import METHODS, RunReader, is_version, language_name
from compass_ray.report.sections import (
    accuracy,
    added_rows,
    benchmarks,
    gaps,
    measures,
    reproducibility,
    timing,
    traffic,
    training_curves,
)
from compass_ray.report.style import dark_palette
from compass_ray.texts import make_visible
from compass_ray.translations import current_language, direction_of, mark, use_language
from compass_ray.translations import translate as _

PAGE = "index.html"
_MONITOR = ("checks.jsonl", "decisions.jsonl")
_SOURCES = (".py", ".j2", ".css", ".po")
_NUMBER = re.compile(
    r"((?<![\w.])[+\u2212-]?"
    r"(?:\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?|\d(?:[\d.,:/\u2013-]*\d)?(?:e[+\u2212-]?\d+)?)"
    r"%?(?: \[[^\]\n]{1,40}\])?)"
)
"""A number with its sign and its interval, such as ``+25.0 [+13.8, +34.4]``; a date with its time, a range or a fraction."""


def build_report(run: RunDir, config: RunConfig) -> Manifest:
    """Build the report of a run. Return the existing one if it is up to date.

    Raises:
        DamagedFileError: a file of the existing report, or of an artifact that it shows, is damaged.
        MissingFileError: such a file does not exist.
    """
    reader = RunReader(run)
    if current := find_current(run, config):
        for artifact in (run.report, *(each for each in _artifacts(reader, config) if each.manifest())):
            artifact.check()
        return current
    manifests = shown_manifests(reader, config)
    identity = _identity(run, config, manifests)
    with use_language(config.report.language):
        comparison = compare(run, config)
        sections = _sections(reader, config, comparison, manifests)
        header = build_header(reader, config, comparison, manifests, _attempts(run))
        page = render(run.path.rsplit("/", 1)[-1], sections, header=header, languages=config.languages)
    writer = run.report.begin(identity)
    for picture in (p for section in sections for p in section.pictures):
        writer.write_bytes(picture.file, picture.data)
    writer.write_bytes(PAGE, page.encode())
    return writer.publish({"pictures": sum(len(s.pictures) for s in sections)})


def find_current(run: RunDir, config: RunConfig) -> Manifest | None:
    """The existing report if it is up to date, by the manifests and the monitor's records; else None."""
    identity, existing = _identity(run, config, shown_manifests(RunReader(run), config)), run.report.manifest()
    return existing if existing and existing.fingerprint == identity.fingerprint else None


_KINDS = {
    "run": (mark("Run"), mark("Made by compass-ray {version} from the artifacts of this run.")),
    "experiment": (mark("Experiment"), mark("Made by compass-ray {version} from the runs of this experiment.")),
}
"""Title and last line of each kind of page."""


def render(
    name: str,
    sections: list[ReportSection],
    *,
    kind: str = "run",
    header: ReportHeader | None = None,
    languages: Sequence[str] = (),
) -> str:
    """Render sections as the HTML page of a run, or of another ``kind``, in the current language. All content is escaped.

    With several ``languages``, the page can be reduced to the parts of one of them, without a script.
    """
    folder = resources.files("compass_ray.report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_finalize
    )
    environment.filters["isolate_numbers"] = _isolate_numbers
    template = environment.from_string((folder / "page.html.j2").read_text("utf-8"))
    style = Markup((folder / "page.css").read_text("utf-8"))
    title, made = _KINDS[kind]
    filters = {code: language_name(code) for code in languages}
    return template.render(
        _=_,
        name=name,
        title=_(title),
        made=_(made, version=__version__),
        header=header,
        sections=sections,
        style=style,
        palette=Markup(dark_palette()),
        language=current_language(),
        direction=direction_of(current_language()),
        filters=filters,
        codes={shown: code for code, shown in filters.items()},
    )


def _finalize(value: Any) -> Any:
    """A value of the page without characters that change the order of its text."""
    return make_visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _isolate_numbers(text: str) -> Markup:
    """The text. From right to left, each number is an element of its own, so that its sign and interval keep their order."""
    parts = [make_visible(text)] if direction_of(current_language()) == "ltr" else _NUMBER.split(make_visible(text))
    number = Markup('<bdi dir="ltr">{}</bdi>')
    return Markup("").join(number.format(part) if index % 2 else part for index, part in enumerate(parts))


def shown_manifests(reader: RunReader, config: RunConfig) -> dict[str, Manifest]:
    """Manifests of the complete artifacts that the page shows, by name, in the order of the stages."""
    found = ((artifact.name, artifact.manifest()) for artifact in _artifacts(reader, config))
    return {name: manifest for name, manifest in found if manifest}


def _artifacts(reader: RunReader, config: RunConfig) -> list[Artifact]:
    run, codes = reader.run, config.languages
    versions = {code: reader.versions(code) for code in codes}
    decided = {(d.language, d.to_version) for d in reader.decisions if d.to_version}
    updated = sorted(decided | {(code, v) for code in codes for v in versions[code]})
    return [
        run.pool,
        *(run.guide(code) for code in codes),
        run.embeddings,
        *(run.guide_embeddings(code) for code in codes),
        *(run.clustering(key) for key in clustering_keys(config)),
        *(run.budget(code) for code in codes),
        *(run.selection(method, code) for code in codes for method in config.select.methods),
        *(run.adapter(code, version) for code in codes for version in versions[code]),
        *(run.full_model(code, FULL_FINETUNING) for code in codes),
        *(run.evaluation(name, code) for code in codes for name in dict.fromkeys([*METHODS, *versions[code]])),
        *run.harness_results(codes),
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
    """Recorded times of a run, without the report stage: with it the page would never be up to date."""
    found = (a.model_copy(update={"stages": tuple(t for t in a.stages if t.stage != "report")}) for a in read_attempts(run))
    return [attempt for attempt in found if attempt.stages]


def _source_hash() -> str:
    """Hash of the source of this package and of the translations, so that a new version rebuilds the page."""
    folders = (resources.files("compass_ray.report"), resources.files("compass_ray.translations"))
    return content_hash(*(file.read_text("utf-8") for folder in folders for file in _walk(folder)))


def _walk(folder: Traversable) -> list[Traversable]:
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _walk(entry)
        elif entry.name.endswith(_SOURCES):
            found.append(entry)
    return found


def _sections(
    reader: RunReader, config: RunConfig, comparison: Comparison, manifests: Mapping[str, Manifest]
) -> list[ReportSection]:
    codes = config.languages
    sections = [
        accuracy.section(reader, codes, comparison),
        measures.section(reader, config),
        benchmarks.section(reader, codes),
        gaps.section(reader, codes),
        added_rows.section(reader, codes),
        training_curves.section(reader, codes, config.serve.method),
        traffic.section(reader, codes),
        timing.section(config, _attempts(reader.run), manifests),
        reproducibility.section(reader, config, manifests),
    ]
    return [section for section in sections if section is not None]
