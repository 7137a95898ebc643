"""The evidence: measurements on disk, the frozen protocol, the analysis against an independent recomputation, and the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.paper import recompute
from benchmarks.paper.evidence import in_process, material
from benchmarks.paper.evidence.__main__ import main
from benchmarks.paper.evidence.analysis import Analysis, analyse
from benchmarks.paper.evidence.measurements import Cell, MeasurementStore, read_footer
from benchmarks.paper.evidence.outcome import describe_claim, describe_go, describe_outcome, format_share
from benchmarks.paper.evidence.page import RECORD, write_page
from benchmarks.paper.evidence.protocol import PROTOCOL, ProtocolError, ProtocolFile
from benchmarks.paper.evidence.runner import Runner, Workplace
from compass_ray.artifacts import Artifact, Identity, RunDir
from compass_ray.config import BiasConfig, RunConfig
from compass_ray.core.bootstrap import Interval
from compass_ray.report.page import PAGE
from compass_ray.row_selection.problem import draw_bias
from compass_ray.stages.train.train_jobs import Job
from compass_ray.training.adapter_job import AdapterPlan

LANGUAGES = ("de", "id", "ha", "ja", "te")
METHODS = ("zero_shot", "target", "random", "compass_deficit", "compass_ratio", "placebo", "oracle")
FAMILIES = ("emoji", "names", "topic")


@pytest.fixture
def file(tmp_path: Path) -> ProtocolFile:
    """A copy of the protocol that a test may change."""
    copy = tmp_path / "protocol.yaml"
    copy.write_text(PROTOCOL.read_text("utf-8"), "utf-8")
    return ProtocolFile(copy)


def measure(
    store: MeasurementStore, cell: Cell, gain: float, items: int = 60, product: Mapping[str, Any] | None = None, **facts: Any
) -> None:
    """Keep a made-up measurement: the gold reply is better by ``gain`` nats than the other options, on average.

    ``product`` replaces columns of the product, and ``facts`` are put into the footer.
    """
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
            "thinned": pa.array(known["thinned"], pa.bool_()),
            "truncated": pa.array([False] * items, pa.bool_()),
        }
        | dict(product or {})
    )
    trained = {} if cell.method == "zero_shot" else {"tokens": 19_000, "steps": 30, "js_before": 0.3, "js_after": 0.2}
    trained |= {"own_rows": 300, "added_rows": 240} if trained else {}
    made = {"protocol": ProtocolFile().sha256, "settings": ProtocolFile().protocol.hash_of(cell.attempt, cell.method)}
    footer = {**made, "text": {"nats": 100.0 - gain, "bytes": 90, "tokens": 30}, **trained, **facts}
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
    return analyse(ProtocolFile(), measured, "t19k", resamples=20)


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
    analysis = analyse(file, fill(tmp_path, {"zero_shot": 0.5}), "t19k", resamples=20)
    sentences = list(describe_outcome(analysis))
    assert all(each.startswith("No difference at this size between") for each in sentences[2:])
    assert "not both measured" in describe_go(analysis)


def test_a_difference_in_all_languages_makes_a_claim(tmp_path: Path, file: ProtocolFile) -> None:
    languages = file.protocol.languages.evaluation
    file.freeze()
    store = fill(tmp_path, {"zero_shot": 0.0, "compass_deficit": 2.0}, "evaluation", languages)
    found = {(claim.method, claim.against): claim.verdict(0.05) for claim in analyse(file, store, "evaluation", 20).claims}
    assert found["compass_deficit", "target"] == found["compass_deficit", "random"] == "better"
    assert ("compass_ratio", "target") not in found


def test_five_languages_cannot_pass_the_corrected_test(analysis: Analysis) -> None:
    verdicts = {(claim.method, claim.against): claim.verdict(0.05) for claim in analysis.claims}
    assert verdicts["compass_deficit", "target"] == "not established"
    assert any("so nothing is claimed" in sentence for sentence in describe_outcome(analysis))
    assert analysis.least_p == pytest.approx(2 * 10 / 2**5)
    assert any(
        sentence.startswith("No claim can pass the corrected test in 5 languages") for sentence in describe_outcome(analysis)
    )


@pytest.fixture(scope="module")
def one_at_chance(tmp_path_factory: pytest.TempPathFactory) -> MeasurementStore:
    """A try in which the rule leaves out Japanese."""
    store = fill(
        tmp_path_factory.mktemp("chance"), {**dict.fromkeys(METHODS, 3.0), "compass_deficit": 4.0}, languages=LANGUAGES[:3]
    )
    for method in METHODS[:4]:
        measure(store, Cell("t19k", "ja", method, 0), -1.0)
    return store


def test_a_language_at_chance_is_left_out_but_shown(one_at_chance: MeasurementStore) -> None:
    found = analyse(ProtocolFile(), one_at_chance, "t19k", resamples=20)
    assert set(found.excluded) == {"ja"}
    for each in (*found.contrasts, *found.texts):
        assert each.counted == LANGUAGES[:3]
        assert set(each.by_language) == set(LANGUAGES[:4])
        assert sum((each.wins.above, each.wins.below, each.wins.equal)) == 3
    probability = next(each for each in found.contrasts if each.measure == "probability" and each.b == "target")
    assert probability.mean == pytest.approx(np.mean([probability.by_language[code].mean for code in LANGUAGES[:3]]))
    write_page(ProtocolFile(), one_at_chance, found)
    assert "ja (left out)" in (one_at_chance.folder / "t19k" / PAGE).read_text("utf-8")


def test_a_recomputation_leaves_out_the_same_languages(
    one_at_chance: MeasurementStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = recompute.recompute(["--try", "t19k", "--folder", str(one_at_chance.folder)])
    assert "left out: ja" in capsys.readouterr().out
    claims = {(each.method, each.against): each for each in analyse(ProtocolFile(), one_at_chance, "t19k", 20).claims}
    assert rows
    for row in rows:
        claim = claims[row["a"], row["b"]]
        assert row["languages"] == 3
        assert row["mean"] == pytest.approx(claim.contrasts[row["measure"]].mean, abs=1e-9)


def test_chance_is_over_the_items_of_the_means(tmp_path: Path, file: ProtocolFile) -> None:
    store = fill(tmp_path, {"zero_shot": 0.5}, languages=("de",), methods=("zero_shot",))
    path = tmp_path / "t19k" / "de" / "items.parquet"
    items = pq.read_table(path)
    others = [not each for each in items["thinned"].to_pylist()]
    # Two options in the items of other subjects, whose chance must not count.
    scores = pq.read_table(path.with_name("zero_shot-s0.parquet"))
    cell, footer = Cell("t19k", "de", "zero_shot", 0), read_footer(path.with_name("zero_shot-s0.parquet"))
    cut = {
        name: [each[:2] if other else each for each, other in zip(items[name].to_pylist(), others, strict=True)]
        for name in ("tokens", "characters", "bytes")
    }
    answers = [min(each, 1) if other else each for each, other in zip(items["answer"].to_pylist(), others, strict=True)]
    sums = [each[:2] if other else each for each, other in zip(scores["sums"].to_pylist(), others, strict=True)]
    path.unlink()
    known = items.select(material.ITEMS.names)
    scored = pa.table(
        {
            "sample_id": items["sample_id"],
            "answer": answers,
            "log_prob_sums": sums,
            "end_log_probs": sums,
            **cut,
            "thinned": items["thinned"],
            "truncated": [False] * len(answers),
        }
    )
    store.write(cell, known, scored, footer)
    assert analyse(file, store, "t19k", resamples=20).chance == pytest.approx(0.25)


@pytest.mark.parametrize("facts", [{"tokens": 12_000}, {"tokens": None}, {"steps": None}, {"steps": 31}])
def test_unequal_or_unrecorded_cost_is_told(tmp_path: Path, file: ProtocolFile, facts: dict[str, Any]) -> None:
    store = fill(tmp_path, {}, languages=LANGUAGES[:2])
    measure(store, Cell("t19k", "de", "dsir", 0), 0.5, **facts)
    found = analyse(file, store, "t19k", resamples=20)
    assert not found.cost.is_equal
    write_page(file, store, found)
    assert "NOT equal" in (tmp_path / "t19k" / PAGE).read_text("utf-8")


def test_equal_cost_is_that_of_the_protocol(tmp_path: Path, file: ProtocolFile) -> None:
    store = MeasurementStore(tmp_path)
    for method in METHODS[:3]:
        measure(store, Cell("t19k", "de", method, 0), 0.5, tokens=38_000)
    cost = analyse(file, store, "t19k", resamples=20).cost
    assert (cost.tokens, cost.wanted, cost.is_equal) == ((38_000,), (19_000,), False)


@pytest.mark.parametrize(
    ("language", "facts", "message"),
    [
        ("ru", {"protocol": "another"}, "another hash than the frozen one: ru/random-s0"),
        ("ru", {"settings": "other"}, "other settings than the protocol has: ru/random-s0"),
        ("ru", {"small": True}, "small tests, whose numbers mean nothing: ru/random-s0"),
        ("de", {}, "of other languages than those of the try, and are left out: de/random-s0"),
    ],
)
def test_an_evaluation_that_deviates_from_the_frozen_protocol_is_refused(
    tmp_path: Path, file: ProtocolFile, language: str, facts: dict[str, Any], message: str
) -> None:
    store = fill(tmp_path, {}, "evaluation", ("ru", "zh"), ("target",))
    with pytest.raises(ProtocolError, match="is not frozen"):
        analyse(file, store, "evaluation", resamples=20)
    file.freeze()
    analyse(file, store, "evaluation", resamples=20)
    measure(store, Cell("evaluation", language, "random", 0), 0.5, **facts)
    with pytest.raises(ProtocolError, match=message):
        analyse(file, store, "evaluation", resamples=20)


def test_a_recomputation_takes_the_languages_of_the_try_and_refuses_another_protocol(tmp_path: Path) -> None:
    store = fill(tmp_path, {}, "evaluation", ("ru", "zh", "de"), ("target", "compass_ratio"))
    rows = recompute.recompute(["--folder", str(tmp_path)])
    assert {row["languages"] for row in rows} == {2}
    measure(store, Cell("evaluation", "ru", "random", 0), 0.5, protocol="another")
    with pytest.raises(SystemExit, match="made under the protocol another"):
        recompute.recompute(["--folder", str(tmp_path)])


def test_deviations_of_a_development_try_are_told(tmp_path: Path, file: ProtocolFile) -> None:
    store = fill(tmp_path, {}, languages=LANGUAGES[:2])
    measure(store, Cell("t19k", "de", "random", 0), 0.5, settings="other")
    measure(store, Cell("t19k", "ru", "random", 0), 0.5)
    found = analyse(file, store, "t19k", resamples=20)
    assert set(found.scores.languages) == set(LANGUAGES[:2])
    assert len(found.scores.deviations) == 2
    lines = write_page(file, store, found)
    assert "other settings than the protocol has: de/random-s0" in (tmp_path / "t19k" / PAGE).read_text("utf-8")
    assert any("ru/random-s0" in line for line in lines)


def test_one_language_and_one_measure_have_sentences_of_their_own(analysis: Analysis) -> None:
    claim = analysis.claims[0]
    bits, probability = (claim.contrasts[name] for name in ("bits_per_byte", "probability"))
    above, around, below = Interval(0.2, 0.1, 0.3), Interval(0.2, -0.1, 0.5), Interval(-0.2, -0.3, -0.1)

    def describe(first: Interval | None, second: Interval | None) -> str:
        pair = {
            "bits_per_byte": replace(bits, interval=first, mean=first.mean if first else 0.2),
            "probability": replace(probability, interval=second, mean=second.mean if second else 0.2),
        }
        return describe_claim(replace(claim, contrasts=pair), 0.05)

    assert describe(None, None).startswith("One language gives no interval")
    assert describe(above, around).startswith("Only the interval of bits per byte excludes 0")
    assert describe(above, below).startswith("The two measures disagree")
    assert describe(around, around).startswith("No difference at this size")


@pytest.mark.parametrize("oracle", [0.5, -1.5])
def test_there_is_no_share_of_a_gain_that_the_oracle_lacks(tmp_path: Path, file: ProtocolFile, oracle: float) -> None:
    store = fill(tmp_path, {"oracle": oracle, "compass_deficit": 1.5}, methods=(*METHODS[:4], "oracle"), languages=LANGUAGES[:3])
    if oracle == 0.5:  # exactly the scores of target
        for code in LANGUAGES[:3]:
            target = Cell("t19k", code, "target", 0).path(tmp_path)
            settings = {"settings": file.protocol.hash_of("t19k", "oracle")}
            table = pq.read_table(target)
            content = json.dumps(read_footer(target) | settings).encode()
            pq.write_table(table.replace_schema_metadata({b"evidence": content}), target.with_name("oracle-s0.parquet"))
    found = analyse(file, store, "t19k", resamples=20)
    share = next(each.share for each in found.contrasts if (each.a, each.b) == ("compass_deficit", "target"))
    assert format_share(share) == "none: the oracle gains nothing"
    write_page(file, store, found)


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
    own = {"settings": ProtocolFile().protocol.hash_of("t19k", "target")}
    assert store.is_done(cell, own)
    assert not store.is_done(Cell("t19k", "de", "target", 1), own)
    with pytest.raises(ProtocolError, match=f"settings = '{own['settings']}'"):
        store.is_done(cell, {"settings": "z"})
    with pytest.raises(ProtocolError, match="other items"):
        measure(store, Cell("t19k", "de", "random", 0), 0.5, items=59)
    assert read_footer(cell.path(tmp_path))["tokens"] == 19_000


def test_tries_share_measurements_with_equal_settings(tmp_path: Path, file: ProtocolFile) -> None:
    """The oracle of the try ``focused`` draws at random, as a method of its own does in another try."""
    protocol, store = file.protocol, MeasurementStore(tmp_path)
    measure(store, Cell("thinned_lr1e-3", "de", "oracle_uniform", 0), 1.0, small=False)
    measure(store, Cell("thinned_lr1e-3", "de", "oracle", 0), 2.0, small=False)
    cell = Cell("focused", "de", "oracle", 0)
    assert protocol.method_of("focused", "oracle") == protocol.method_of("t19k", "oracle_uniform")
    expected = {"settings": protocol.hash_of("focused", "oracle"), "small": False}
    assert store.adopt(replace(cell, seed=1), expected) is None
    assert store.adopt(cell, expected) == "thinned_lr1e-3/de/oracle_uniform-s0"
    assert store.is_done(cell, expected)
    found, origin = store.read(cell), store.read(Cell("thinned_lr1e-3", "de", "oracle_uniform", 0))
    assert found.scores.equals(origin.scores)
    own = {"cell": {"try": "focused", "language": "de", "method": "oracle", "seed": 0}}
    assert found.footer == origin.footer | own | {"copy_of": "thinned_lr1e-3/de/oracle_uniform-s0"}
    assert store.items("focused", "de").equals(store.items("thinned_lr1e-3", "de"))
    measure(store, Cell("t19k", "ha", "oracle_uniform", 0), 1.0, items=40, small=False, settings=expected["settings"])
    measure(store, Cell("focused", "ha", "target", 0), 1.0)
    with pytest.raises(ProtocolError, match="has other items than"):
        store.adopt(Cell("focused", "ha", "oracle", 0), expected)


def test_guide_prompts_are_those_of_the_families_or_of_the_thinned_subjects(tmp_path: Path, file: ProtocolFile) -> None:
    kit = tmp_path / "kit"
    (kit / "global_mmlu" / "de").mkdir(parents=True)
    subjects = ["emoji_food", "emoji_places", "virology", "topic_news"]
    pq.write_table(pa.table({"subject": subjects}), kit / "global_mmlu" / "de" / "dev-00000-of-00001.parquet")
    record = {"languages": {"de": {"thinned": ["emoji_food", "virology"]}}}
    (tmp_path / "material.json").write_text(json.dumps(record), "utf-8")
    found = {}
    for chosen in ("families", "thinned"):
        made = material.Material(tmp_path, ("de",), chosen)
        made.write_guides(file.protocol, kit)
        path = Path(made.guides(kit)["path"].replace("{language}", "de"))
        found[chosen] = pq.read_table(path)["subject"].to_pylist()
    assert found == {"families": ["emoji_food", "emoji_places", "topic_news"], "thinned": ["emoji_food"]}
    assert material.Material(tmp_path, ("de",)).guides(kit)["path"] == str(kit / "global_mmlu")


def test_what_the_product_says_of_the_items_is_compared_with_the_material(tmp_path: Path) -> None:
    store, cell = MeasurementStore(tmp_path), Cell("t19k", "de", "target", 0)
    with pytest.raises(ProtocolError, match="thinned other subjects than the material says, for 15 items"):
        measure(store, cell, 0.5, product={"thinned": pa.array([True] * 60, pa.bool_())})
    with pytest.raises(ProtocolError, match="1 items lost the end of a reply, the first kit/007"):
        measure(store, cell, 0.5, product={"truncated": pa.array([i == 7 for i in range(60)], pa.bool_())})
    assert not list(store.cells("t19k"))
    measure(store, cell, 0.5, product={"thinned": pa.array([None] * 60, pa.bool_())})


def test_two_processes_may_write_the_items_of_a_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[Path] = []

    def move(part: Path, path: Path) -> None:
        parts.append(part)
        part.rename(path)

    monkeypatch.setattr("os.replace", move)
    for method in ("target", "random"):
        measure(MeasurementStore(tmp_path / method), Cell("t19k", "de", method, 0), 0.5)
    assert len({part.name for part in parts}) == len(parts) == 4
    assert not list(tmp_path.rglob("*.part"))


def runner(file: ProtocolFile, tmp_path: Path, attempt: str) -> Runner:
    return Runner(file, attempt, Workplace(tmp_path, tmp_path, tmp_path / "work"), MeasurementStore(tmp_path / "kept"))


def test_evaluation_languages_are_scored_under_the_frozen_protocol_only(file: ProtocolFile, tmp_path: Path) -> None:
    cells = [Cell("evaluation", "ru", "target", 0)]
    with pytest.raises(ProtocolError, match="is not frozen"):
        runner(file, tmp_path, "evaluation").run(cells)
    with pytest.raises(ProtocolError, match="ru is no language of the try 't19k'"):
        runner(file, tmp_path, "t19k").run([Cell("t19k", "ru", "target", 0)])
    with pytest.raises(ProtocolError, match="de is no language of the try 'evaluation'"):
        runner(file, tmp_path, "evaluation").run([Cell("evaluation", "de", "target", 0)])
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
    with pytest.raises(ProtocolError, match="no try 'neverdone'"):
        protocol.settings_of("neverdone", "target")
    assert protocol.languages_of("evaluation_second_base") == ("tr", "sw", "yo")
    assert protocol.order_of("evaluation_second_base") == protocol.order[:1]
    assert protocol.languages_of("t19k") == protocol.languages.development
    assert protocol.order_of("evaluation") == protocol.order


@dataclass
class Recorder:
    """Takes the cells that a command would run."""

    cells: list[Cell] = field(default_factory=list)

    def run(self, _: Runner, cells: Iterable[Cell]) -> int:
        self.cells += cells
        return 0


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(Runner, "run", lambda runner, cells: found.run(runner, cells))
    for name in ("COMPASS_REAL_MODELS", "COMPASS_SHARED_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    return found


def test_a_try_runs_its_own_languages_and_parts(recorder: Recorder) -> None:
    assert main(["run", "--try", "evaluation_second_base"]) == 0
    assert {cell.language for cell in recorder.cells} == {"tr", "sw", "yo"}
    assert {cell.method for cell in recorder.cells} == set(ProtocolFile().protocol.order[0].methods)
    assert {cell.seed for cell in recorder.cells} == {0}


def test_chosen_seeds_are_those_of_a_part(recorder: Recorder) -> None:
    assert main(["run", "--seeds", "1"]) == 0
    later = ProtocolFile().protocol.order[2:]
    assert {(cell.method, cell.seed) for cell in recorder.cells} == {(name, 1) for part in later for name in part.methods}
    assert len(recorder.cells) == len(set(recorder.cells))
    recorder.cells.clear()
    assert main(["pilot", "--seeds", "1", "--methods", "zero_shot,target", "--languages", "de"]) == 0
    assert recorder.cells == [Cell("t19k", "de", "target", 1)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pilot --try evaluation", "is an evaluation; score it with `run`"),
        ("quantiles --try evaluation", "is an evaluation; score it with `run`"),
        ("targeting --try evaluation_second_base", "is an evaluation; score it with `run`"),
        ("run --try t19k", "is no evaluation; use `pilot`"),
        ("run --languages de", "there is no language de here; choose from ru"),
        ("pilot --languages ru", "there is no language ru here; choose from de"),
        ("pilot --try nosuch", "the protocol has no try 'nosuch'"),
        ("pilot --methods nosuch", "there is no method nosuch here"),
        ("pilot --seeds 7", "there is no seed 7 here; choose from 0, 1, 2"),
        ("analyse --try nosuch", "the protocol has no try 'nosuch'"),
        ("analyse --output nowhere --try t38k", "nothing is measured of the try 't38k'"),
    ],
)
def test_a_wrong_argument_is_an_error_in_words(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert main(command.split()) == 1
    assert message in capsys.readouterr().err
    assert not recorder.cells


def test_a_changed_setting_has_a_working_folder_of_its_own(file: ProtocolFile, tmp_path: Path) -> None:
    def folder(path: Path, attempt: str, name: str) -> Path:
        one = runner(ProtocolFile(path), tmp_path, attempt)
        object.__setattr__(one, "material", material.Material(tmp_path / name, LANGUAGES))
        return one._folder(Cell(attempt, "de", "compass_deficit", 0))

    before = folder(file.path, "t19k", "material-a")
    assert before == folder(file.path, "t19k", "material-a") != folder(file.path, "t19k", "material-b")
    text = file.path.read_text("utf-8")
    changed = tmp_path / "changed.yaml"
    changed.write_text(text.replace("{method: compass, select: {weights: deficit, mode: nearest}}", "{method: compass}"), "utf-8")
    assert changed.read_text("utf-8") != text
    assert folder(changed, "t19k", "material-a") != before


def test_a_training_begins_its_artifact_so_that_another_state_is_not_resumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifact = RunDir(str(tmp_path)).adapter("de", "target")
    first, second = (Identity("train", {"seed": seed}, {}) for seed in (0, 1))
    artifact.begin(first)
    state = Path(artifact.path) / "state.pt"
    state.write_bytes(b"of seed 0")
    seen: list[bool] = []
    monkeypatch.setattr(in_process, "load_shared_base", lambda config: None)
    monkeypatch.setattr(in_process, "train_adapter", lambda *_: seen.append(state.exists()))
    for identity in (first, second):
        adapter = AdapterPlan("de", artifact, identity, artifact, served=False)
        monkeypatch.setattr(in_process, "plan", lambda *_, adapter=adapter: adapter)
        in_process.train(RunConfig.model_validate({"languages": ["de"]}), RunDir(str(tmp_path)), Job("de", "target", "target"))
    assert seen == [True, False]


def test_a_thinning_that_leaves_other_rows_than_wanted_is_not_taken() -> None:
    bias, rng = BiasConfig(p_low=0.3, keep=0.2, seed=0), np.random.default_rng(0)
    found = set()
    for _ in range(20):
        subjects = [f"emoji_{number}" for number in rng.geometric(0.1, 120)]
        count, thinned = material._thin(bias, "de", subjects, 60)
        found.add(bool(count))
        if count:
            assert thinned
            assert draw_bias(bias, 0, "de", subjects[:count]).kept.sum() == 60
    assert found == {True, False}


def test_other_own_rows_than_the_protocol_says_are_refused(
    file: ProtocolFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"rows.parquet": pa.table({"row_id": ["a", "b"], "role": ["target", "auxiliary"], "subject": ["x", "x"]})}
    tables["guide.parquet"] = pa.table({"subject": ["x"]})
    monkeypatch.setattr(Artifact, "read_table", lambda _, name, columns=None: tables[name])
    one, cell = runner(file, tmp_path, "t19k"), Cell("t19k", "de", "random", 0)
    object.__setattr__(one, "material", material.Material(tmp_path, LANGUAGES))
    with pytest.raises(ProtocolError, match=r"1 own rows after thinning, and material\.own_rows is 300"):
        one._targeting(RunDir(str(tmp_path)), cell)


def test_the_limits_tell_what_was_seen_before_the_freeze(tmp_path: Path, file: ProtocolFile) -> None:
    file.freeze()
    store = fill(tmp_path, {}, "evaluation", ("ru", "zh"), METHODS[:3])
    write_page(file, store, analyse(file, store, "evaluation", resamples=20))
    page = (tmp_path / "evaluation" / PAGE).read_text("utf-8")
    assert "measured three times in the twelve evaluation languages before the protocol was frozen" in page
    assert "The method all sees 19,000 tokens of the pool" in page
    assert "Bits per byte here is the mean over items" in page
    assert "no claim can pass, however large the differences are" in page


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
