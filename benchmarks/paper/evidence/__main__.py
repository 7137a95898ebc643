"""Commands of the evidence: `pilot`, `targeting`, `quantiles`, `freeze`, `run` and `analyse`.

Models and the data kit are found through COMPASS_REAL_MODELS and COMPASS_SHARED_DATA. Runs are resumable: a measurement that is
kept is not made again. `--small` tests a command in a minute or two; its numbers mean nothing and are kept in the working folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.paper.evidence.measurements import FOLDER, Cell, MeasurementStore
from benchmarks.paper.evidence.protocol import EVALUATION, ZERO_SHOT, ProtocolError, ProtocolFile, is_evaluation
from benchmarks.paper.evidence.runner import Runner, Workplace


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    arguments = _parser().parse_args(argv)
    try:
        _COMMANDS[arguments.command](arguments)
    except ProtocolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.evidence", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "pilot": "train and score methods in the development languages",
        "targeting": "select rows in the development languages, and print the divergence over true subjects; no training",
        "quantiles": "one adapter for each fifth of the candidates by distance to the guide set, in the development languages",
        "freeze": "record the hash of the protocol; from then on the evaluation languages may be scored under it",
        "run": "train and score all methods of an evaluation in its languages, in the order of the protocol",
        "analyse": "write the tables and the page of a try from what is measured",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "freeze":
            continue
        command.add_argument(
            "--output", type=Path, help="folder of the measurements (default: benchmarks/results/paper/evidence)"
        )
        default = EVALUATION if name in ("run", "analyse") else "t19k"
        command.add_argument("--try", dest="attempt", default=default, help="a try of the protocol (default: %(default)s)")
        if name == "analyse":
            continue
        command.add_argument(
            "--work", type=Path, default=Path("evidence-work"), help="folder of temporary runs (default: %(default)s)"
        )
        command.add_argument("--threads", type=int, default=2, help="threads of this process (default: %(default)s)")
        command.add_argument("--languages", type=_names, help="only these languages")
        command.add_argument("--methods", type=_names, help="only these methods of the protocol")
        command.add_argument("--seeds", type=_names, help="only these seeds")
        command.add_argument("--small", action="store_true", help="few rows, tokens and items, to test the command")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _runner(arguments: argparse.Namespace) -> Runner:
    torch.set_num_threads(arguments.threads)
    place = Workplace.from_environment(arguments.work, arguments.threads)
    folder = arguments.output or (place.work / "small-results" if arguments.small else FOLDER)
    return Runner(ProtocolFile(), arguments.attempt, place, MeasurementStore(folder), _say, arguments.small)


def _say(line: str) -> None:
    print(line, flush=True)


def _cells(arguments: argparse.Namespace, runner: Runner, methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Chosen cells language by language; the base model has the first seed of the protocol only.

    Raises:
        ProtocolError: a chosen language, method or seed is not known.
    """
    protocol = runner.protocol
    languages = _choose("language", arguments.languages, runner.languages, runner.languages)
    chosen = _choose("method", arguments.methods, protocol.methods, methods)
    wanted = _choose("seed", arguments.seeds, [str(seed) for seed in protocol.seeds], [str(seed) for seed in seeds])
    return [
        Cell(arguments.attempt, language, method, int(seed))
        for language in languages
        for seed in wanted
        for method in chosen
        if method != ZERO_SHOT or int(seed) == protocol.seeds[0]
    ]


def _choose(kind: str, wanted: Sequence[str] | None, known: Iterable[str], default: Sequence[str]) -> list[str]:
    """Those of ``default`` that are wanted, or all; an error names what is not known at all."""
    if unknown := [name for name in wanted or () if name not in known]:
        raise ProtocolError(f"there is no {kind} {', '.join(unknown)} here; choose from {', '.join(known)}")
    return [name for name in default if not wanted or name in wanted]


def _development_runner(arguments: argparse.Namespace) -> Runner:
    runner = _runner(arguments)
    if is_evaluation(arguments.attempt):
        raise ProtocolError(f"the try {arguments.attempt!r} is an evaluation; score it with `run`, or choose another --try")
    return runner


def _pilot(arguments: argparse.Namespace) -> None:
    runner = _development_runner(arguments)
    methods = arguments.methods or runner.protocol.pilot_methods
    runner.run(_cells(arguments, runner, methods, _pilot_seeds(arguments, runner)))


def _pilot_seeds(arguments: argparse.Namespace, runner: Runner) -> Sequence[int]:
    """The first seed, unless seeds are chosen."""
    return runner.protocol.seeds if arguments.seeds else runner.protocol.seeds[:1]


def _quantiles(arguments: argparse.Namespace) -> None:
    runner = _development_runner(arguments)
    runner.run(_cells(arguments, runner, runner.protocol.quantile_methods, _pilot_seeds(arguments, runner)))


def _targeting(arguments: argparse.Namespace) -> None:
    runner = _development_runner(arguments)
    left_out = {ZERO_SHOT, "all", *runner.protocol.quantile_methods}
    methods = arguments.methods or [name for name in runner.protocol.methods if name not in left_out]
    for cell in _cells(arguments, runner, methods, _pilot_seeds(arguments, runner)):
        found = runner.select(cell)
        _say(f"{cell.language} {cell.method}: {' '.join(f'{name} {value:.3f}' for name, value in found.items())}")


def _freeze(arguments: argparse.Namespace) -> None:
    print(ProtocolFile().freeze())


def _run(arguments: argparse.Namespace) -> None:
    runner = _runner(arguments)
    if not is_evaluation(arguments.attempt):
        raise ProtocolError(f"the try {arguments.attempt!r} is no evaluation; use `pilot`, or choose another --try")
    for part in runner.protocol.order_of(arguments.attempt):
        runner.run(_cells(arguments, runner, part.methods, part.seeds))


def _analyse(arguments: argparse.Namespace) -> None:
    from benchmarks.paper.evidence.analysis import analyse
    from benchmarks.paper.evidence.page import write_page

    file, store = ProtocolFile(), MeasurementStore(arguments.output or FOLDER)
    found = analyse(file, store, arguments.attempt)
    for line in write_page(file, store, found):
        print(line)


_COMMANDS = {
    "pilot": _pilot,
    "targeting": _targeting,
    "quantiles": _quantiles,
    "freeze": _freeze,
    "run": _run,
    "analyse": _analyse,
}


if __name__ == "__main__":
    sys.exit(main())
