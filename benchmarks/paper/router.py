"""How often does a prompt reach the adapter of its language? The router on texts whose language is known.

The package's own decision is measured: identifier, thresholds, script check and blended pairs (COMPASS, sections 3.2.5 and
4.2), on complete texts and on their first words, in the languages of the run and in others. lid.176 is measured if
``COMPASS_REAL_MODELS`` names its folder. GlotLID's model is not downloaded; give its file with ``--model``. Neither time nor
conversations are measured: a conversation keeps its language.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.router_decisions import PRECISION, Item, measure
from benchmarks.paper.router_texts import Corpora, atlas_corpora, data_folder, shared_corpora, train_identifier
from benchmarks.record import RESULTS, Record, Value, parser, write_record
from compass_ray.config import IdentifierConfig
from compass_ray.languages import GLOBAL_MMLU
from compass_ray.models.language_id import LanguageIdentifier
from compass_ray.report.style import METHOD_STYLES, MUTED, new_figure, to_png, with_style

SMALL = ["am", "el", "en", "sw"]
DRAWN = "3_words"
"""The length in the plot. Complete sentences are rarely confused."""
_LEAST_NAMED = 0.1


def texts(arguments: argparse.Namespace) -> Corpora:
    """Texts to train and to evaluate on."""
    if arguments.small:
        return atlas_corpora(SMALL, ["hi", "ru"], judged=10)
    languages, seed = arguments.languages or GLOBAL_MMLU, arguments.seeds[0]
    return shared_corpora(data_folder(), languages, learnt=arguments.learnt, judged=arguments.judged, seed=seed)


def identifiers(arguments: argparse.Namespace, given: Corpora) -> dict[str, LanguageIdentifier]:
    """The identifier of the package, one trained here, lid.176 if it is on this machine, and the given one."""
    models = os.environ.get("COMPASS_REAL_MODELS")
    files = {"lid176": str(Path(models) / "lid.176.ftz")} if models and not arguments.small else {}
    files |= {"model": arguments.model} if arguments.model else {}
    return {
        "atlas": LanguageIdentifier(IdentifierConfig()),
        "learnt": train_identifier(given.learnt, seed=arguments.seeds[0]),
    } | {name: LanguageIdentifier(IdentifierConfig(model=file)) for name, file in files.items()}


@with_style
def picture(items: Sequence[Item], title: str) -> Figure:
    """Plot the share of each language's texts that is identified as another language; label the larger shares."""
    codes = list(dict.fromkeys(item.code for item in items))
    index = {code: i for i, code in enumerate(codes)}
    counts = np.zeros((len(codes), len(codes)))
    for item in items:
        if item.found.language:
            counts[index[item.code], index[item.found.language]] += 1
    shares = counts / np.array([[sum(item.code == code for item in items)] for code in codes])
    rows, columns = np.nonzero((shares > 0) & ~np.eye(len(codes), dtype=bool))
    figure, axes = new_figure(7.4, 7.2)
    axes.scatter(columns, rows, s=260 * shares[rows, columns], marker="s", color=METHOD_STYLES["compass"].colour)
    axes.scatter(range(len(codes)), range(len(codes)), s=3, color=MUTED)
    for row, column in zip(rows, columns, strict=True):
        if shares[row, column] >= _LEAST_NAMED:
            axes.annotate(f"{shares[row, column]:.0%}", (column, row), (8, 5), textcoords="offset points", fontsize=6.5)
    for axis, name in ((axes.xaxis, "identified as"), (axes.yaxis, "text in")):
        axis.set_ticks(range(len(codes)), codes, fontsize=7)
        axis.set_tick_params(pad=3)
        axis.set_label_text(name)
    axes.set(xlim=(-1, len(codes)), ylim=(len(codes), -1))
    axes.set_title(title)
    return figure


def _draw(folder: Path, name: str, items: Sequence[Item]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = picture(items, f"Confused languages, first three words, identifier '{name}'")
    (folder / f"paper_router_{name}.png").write_bytes(to_png(drawn))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--languages", nargs="+", help="default: all 42")
    options.add_argument("--learnt", type=int, default=3000, help="maximum training lines of a language for the identifier")
    options.add_argument("--judged", type=int, default=500, help="maximum test texts of a language and source")
    options.add_argument("--model", help="a further identifier, such as GlotLID's model_v3.bin")
    options.add_argument("--seeds", nargs=1, type=int, default=[0])
    return options.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Run from the command line."""
    arguments = _arguments(argv)
    given = texts(arguments)
    numbers: dict[str, Value] = {"learnt_texts": sum(map(len, given.learnt.values()))}
    pictures = arguments.output or (None if arguments.small else RESULTS)
    for name, identifier in identifiers(arguments, given).items():
        numbers[name], sentences = measure(identifier, given)
        if pictures is not None:
            _draw(pictures, name, sentences[DRAWN])
    defaults = IdentifierConfig()
    settings: dict[str, Value] = {
        "languages": len(given.sentences),
        "chance": 1 / len(given.sentences),
        "strangers": sorted(given.strangers),
        "threshold": defaults.min_confidence,
        "precision": PRECISION,
        "learnt": arguments.learnt,
        "judged": arguments.judged,
    }
    return write_record("paper/router", arguments, seeds=arguments.seeds, settings=settings, numbers=numbers, argv=argv)


if __name__ == "__main__":
    main()
