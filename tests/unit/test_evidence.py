"""The evidence: measurements on disk, the frozen protocol, the analysis against an independent recomputation, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.paper import recompute
from benchmarks.paper.evidence import material
from benchmarks.paper.evidence.__main__ import main
from benchmarks.paper.evidence.analysis import Analysis, analyse
from benchmarks.paper.evidence.measurements import Cell, MeasurementStore, read_footer
from benchmarks.paper.evidence.outcome import describe_go, describe_outcome
from benchmarks.paper.evidence.page import PAGE, RECORD, write_page
from benchmarks.paper.evidence.protocol import PROTOCOL, ProtocolError, ProtocolFile
from benchmarks.paper.evidence.runner import Runner, Workplace
from compass_ray.config import RunConfig

LANGUAGES = ("de", "id", "ha", "ja", "te")
METHODS = ("zero_shot", "target", "random", "compass_deficit", "compass_ratio", "placebo", "oracle")
FAMILIES = ("emoji", "names", "topic")


@pytest.fixture
def file(tmp_path: Path) -> ProtocolFile:
    """A copy of the protocol that a test may change."""
    copy = tmp_path / "protocol.yaml"
    copy.write_text(PROTOCOL.read_text("utf-8"), "utf-8")
    return ProtocolFile(copy)


def measure(store: MeasurementStore, cell: Cell, gain: float, tokens: int = 19_000, items: int = 60) -> None:
    """Keep a made-up measurement: the gold reply is better by ``gain`` nats than the other options, on average."""
    ids = [f"kit/{i:03d}" for i in range(items)]
    known = {
        "sample_id": ids,
        "subject": [f"{FAMILIES[i % 3]}_{i % 2}" for i in range(items)],
        "family": [FAMILIES[i % 3] for i in range(items)],
        "thinned": [i % 4 != 0 for i in range(items)],
        "elsewhere": [i % 5 == 0 for i in range(items)],
    }
    item, own = np.random.default_rng(0), np.random.default_rng([len(cell.language), *cell.language.encode()])
    noise = np.random.default_rng([cell.seed, *f"{cell.language}{cell.method}".encode()])
    answers = item.integers(4, size=items)
    sizes = item.integers(3, 9, (items, 4))
    totals = item.normal(-12, 1, (items, 4)) + own.normal(0, 1, (items, 4)) + noise.normal(0, 0.3, (items, 4))
    totals[np.arange(items), answers] += gain
    scored = pa.table(
        {
            "sample_id": ids,
            "answer": pa.array(answers, pa.int8()),
            "log_prob_sums": pa.array(np.minimum(totals, -0.1).tolist(), pa.list_(pa.float32())),
            "end_log_probs": pa.array(np.full((items, 4), -1.0).tolist(), pa.list_(pa.float32())),
            "tokens": sizes.tolist(),
            "characters": sizes.tolist(),
            "bytes": sizes.tolist(),
        }
    )
    trained = {} if cell.method == "zero_shot" else {"tokens": tokens, "steps": 30, "js_before": 0.3, "js_after": 0.2}
    trained |= {"own_rows": 300, "added_rows": 240} if trained else {}
    footer = {"protocol": "x", "settings": "y", "text": {"nats": 100.0 - gain, "bytes": 90, "tokens": 30}, **trained}
    store.write(cell, pa.table(known, schema=material.ITEMS), scored, footer)


def fill(
    folder: Path,
    gains: Mapping[str, float],
    attempt: str = "t19k",
    languages: tuple[str, ...] = LANGUAGES,
    methods: tuple[str, ...] = METHODS[:4],
    seeds: tuple[int, ...] = (0,),
) -> MeasurementStore:
    store = MeasurementStore(folder)
    for language in languages:
        for method in methods:
            for seed in (0,) if method == "zero_shot" else seeds:
                measure(store, Cell(attempt, language, method, seed), gains.get(method, 0.5))
    return store


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> MeasurementStore:
    """A try with every method of the pilot; the oracle gains most."""
    gains = {"zero_shot": 0.0, "oracle": 2.5, "compass_deficit": 1.5, "placebo": 0.5}
    return fill(tmp_path_factory.mktemp("measured"), gains, methods=METHODS, seeds=(0, 1))


@pytest.fixture(scope="module")
def analysis(measured: MeasurementStore) -> Analysis:
    return analyse(ProtocolFile().protocol, measured, "t19k", resamples=20)


def test_a_recomputation_from_the_files_gives_the_same_table(measured: MeasurementStore, analysis: Analysis) -> None:
    rows = recompute.recompute(["--try", "t19k", "--folder", str(measured.folder)])
    found = {(row["a"], row["b"], row["measure"]): row for row in rows}
    assert len(found) == sum(len(claim.contrasts) for claim in analysis.claims) == 8
    for claim in analysis.claims:
        for name, contrast in claim.contrasts.items():
            row = found[claim.method, claim.against, name]
            assert contrast.interval is not None
            ours = (contrast.mean, contrast.interval.low, contrast.interval.high, contrast.p_value, claim.corrected[name])
            assert ours == pytest.approx(tuple(row[key] for key in ("mean", "low", "high", "p", "corrected")), abs=1e-9)


def test_the_oracle_separates_and_the_share_of_its_gain_is_found(analysis: Analysis) -> None:
    found = {(each.a, each.b, each.measure): each for each in analysis.contrasts}
    share = found["compass_deficit", "target", "bits_per_byte"].share
    assert share is not None
    assert share.low < 0.5 < share.high
    assert describe_go(analysis).startswith("Go:")
    assert found["oracle", "random", "probability"].wins.above == len(LANGUAGES)
    assert analysis.cost.is_equal
    assert analysis.noise["probability"] > 1.0


def test_equal_methods_make_the_sentence_of_no_difference(tmp_path: Path, file: ProtocolFile) -> None:
    analysis = analyse(file.protocol, fill(tmp_path, {"zero_shot": 0.5}), "t19k", resamples=20)
    sentences = list(describe_outcome(analysis))
    assert all(each.startswith("No difference at this size between") for each in sentences[1:])
    assert "not both measured" in describe_go(analysis)


def test_a_difference_in_all_languages_makes_a_claim(tmp_path: Path, file: ProtocolFile) -> None:
    languages = file.protocol.languages.evaluation
    store = fill(tmp_path, {"zero_shot": 0.0, "compass_deficit": 2.0}, "evaluation", languages)
    found = {
        (claim.method, claim.against): claim.verdict(0.05) for claim in analyse(file.protocol, store, "evaluation", 20).claims
    }
    assert found["compass_deficit", "target"] == found["compass_deficit", "random"] == "better"
    assert ("compass_ratio", "target") not in found


def test_five_languages_cannot_pass_the_corrected_test(analysis: Analysis) -> None:
    verdicts = {(claim.method, claim.against): claim.verdict(0.05) for claim in analysis.claims}
    assert verdicts["compass_deficit", "target"] == "not established"
    assert any("so nothing is claimed" in sentence for sentence in describe_outcome(analysis))


def test_a_language_at_chance_is_left_out_of_the_means(tmp_path: Path, file: ProtocolFile) -> None:
    store = fill(tmp_path, dict.fromkeys(METHODS, 3.0), languages=LANGUAGES[:3])
    for method in METHODS[:4]:
        measure(store, Cell("t19k", "ja", method, 0), -1.0)
    found = analyse(file.protocol, store, "t19k", resamples=20)
    assert set(found.excluded) == {"ja"}
    assert all("ja" not in each.by_language for each in found.contrasts)


def test_unequal_cost_is_told(tmp_path: Path, file: ProtocolFile) -> None:
    store = fill(tmp_path, {}, languages=LANGUAGES[:2])
    measure(store, Cell("t19k", "de", "dsir", 0), 0.5, tokens=12_000)
    found = analyse(file.protocol, store, "t19k", resamples=20)
    assert not found.cost.is_equal
    write_page(file, store, found)
    assert "NOT equal" in (tmp_path / "t19k" / PAGE).read_text("utf-8")


def test_the_page_and_its_record_hold_every_file_and_no_texts(measured: MeasurementStore, analysis: Analysis) -> None:
    lines, folder = write_page(ProtocolFile(), measured, analysis), measured.folder / "t19k"
    page, record = (folder / PAGE).read_text("utf-8"), json.loads((folder / RECORD).read_text("utf-8"))
    assert all(f'href="{language}/oracle-s1.parquet"' in page for language in LANGUAGES)
    assert "What is not shown?" in page
    assert record["cost"]["equal"]
    assert record["outcome"] == list(describe_outcome(analysis))
    assert any("tokens 19,000" in line for line in lines)
    names = {name for path in folder.glob("*/*.parquet") for name in pq.read_schema(path).names}
    assert not names & {"question", "options", "prompt"}


def test_other_items_or_settings_are_refused(tmp_path: Path) -> None:
    store, cell = MeasurementStore(tmp_path), Cell("t19k", "de", "target", 0)
    measure(store, cell, 0.5)
    assert store.is_done(cell, {"settings": "y"})
    assert not store.is_done(Cell("t19k", "de", "target", 1), {"settings": "y"})
    with pytest.raises(ProtocolError, match="settings = 'y'"):
        store.is_done(cell, {"settings": "z"})
    with pytest.raises(ProtocolError, match="other items"):
        measure(store, Cell("t19k", "de", "random", 0), 0.5, items=59)
    assert read_footer(cell.path(tmp_path))["tokens"] == 19_000


def runner(file: ProtocolFile, tmp_path: Path, attempt: str) -> Runner:
    return Runner(file, attempt, Workplace(tmp_path, tmp_path, tmp_path / "work"), MeasurementStore(tmp_path / "kept"))


def test_evaluation_languages_are_scored_under_the_frozen_protocol_only(file: ProtocolFile, tmp_path: Path) -> None:
    cells = [Cell("evaluation", "ru", "target", 0)]
    with pytest.raises(ProtocolError, match="is not frozen"):
        runner(file, tmp_path, "evaluation").run(cells)
    with pytest.raises(ProtocolError, match="in the try 'evaluation' only"):
        runner(file, tmp_path, "t19k").run([Cell("t19k", "ru", "target", 0)])
    assert file.freeze() == file.sha256 == file.frozen
    file.path.write_text(file.path.read_text("utf-8") + "\n# changed\n", "utf-8")
    changed = ProtocolFile(file.path)
    with pytest.raises(ProtocolError, match="was frozen as"):
        runner(changed, tmp_path, "evaluation").run(cells)
    with pytest.raises(ProtocolError, match="was frozen as"):
        changed.freeze()


def test_the_protocol_is_complete_and_its_settings_are_settings_of_a_run(file: ProtocolFile) -> None:
    protocol = file.protocol
    assert not set(protocol.languages.development) & set(protocol.languages.evaluation)
    named = {*protocol.claims.methods, *protocol.claims.against, *protocol.pilot_methods, *protocol.quantile_methods}
    assert named | {name for part in protocol.order for name in part.methods} <= set(protocol.methods)
    for attempt in protocol.tries:
        for method in protocol.methods:
            settings: dict[str, Any] = protocol.settings_of(attempt, method)
            RunConfig.model_validate({"languages": ["de"], **settings})
            assert settings["train"]["tokens"]
    assert protocol.family_of("language_name_asia") == protocol.family_of("region_africa") == "names"
    assert protocol.family_of("tldr_common") is None
    with pytest.raises(ProtocolError, match="no 'neverdone'"):
        protocol.settings_of("neverdone", "target")


@pytest.mark.soak
@pytest.mark.real_models
@pytest.mark.shared_data
def test_a_small_pilot_is_measured_once_and_analysed(
    real_models: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "kept")]
    command = ["pilot", "--small", "--languages", "de", "--methods", "zero_shot,target,random", "--threads", "1", *work]
    assert main(command) == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept" / "t19k" / "de").iterdir()}
    assert set(kept) == {"items.parquet", "zero_shot-s0.parquet", "target-s0.parquet", "random-s0.parquet"}
    footers = [read_footer(tmp_path / "kept" / "t19k" / "de" / f"{method}-s0.parquet") for method in ("target", "random")]
    assert len({(each["tokens"], each["steps"]) for each in footers}) == 1
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept" / "t19k" / "de").iterdir()} == kept
    assert main(["analyse", "--try", "t19k", "--output", str(tmp_path / "kept")]) == 0
    assert "random - target" in capsys.readouterr().out
