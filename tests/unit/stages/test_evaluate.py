"""One evaluation of a run of a former version: its test set has no ids and no families, and all measures are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass_ray import schemas
from compass_ray.artifacts import Identity, RunDir
from compass_ray.config import ConfigError, RunConfig, load_run_config, with_overrides
from compass_ray.core.choice_measures import bits_per_byte, perplexity
from compass_ray.core.families import join_families
from compass_ray.report.comparison import low_subjects
from compass_ray.report.run_reader import RunReader
from compass_ray.sources.guides import read_guide_and_test
from compass_ray.stages.evaluate import Evaluation, Scorer, _identity, read_texts
from tests import former_run

ZERO_SHOT = Evaluation("zero_shot", "sw", None)
SETS = (("guides", "dev"), ("tests", "test"))
LINES = ["Mji mkuu wa Kenya ni Nairobi.", "Fedha ya Uganda ni shilingi."]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return former_run.extract(tmp_path_factory.mktemp("former"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """A setting that names a text of Swahili."""
    (tmp_path / "sw.txt").write_text("\n".join(LINES), "utf-8")
    return f"evaluate.texts={tmp_path}/{{language}}.txt"


def fingerprint(config: RunConfig, run: RunDir) -> str:
    return _identity(config, run, ZERO_SHOT).fingerprint


def test_a_text_changes_what_an_evaluation_is_and_families_do_not(run: RunDir, texts: str, tmp_path: Path) -> None:
    config = run.read_config()
    named = with_overrides(config, ["evaluate.families={names: [region, language]}", "evaluate.text_lines=7"])
    assert fingerprint(named, run) == fingerprint(config, run)
    with_text, shorter = (with_overrides(config, [texts, *more]) for more in ([], ["evaluate.text_lines=1"]))
    assert len({fingerprint(each, run) for each in (config, with_text, shorter)}) == 3
    moved = tmp_path / "elsewhere" / "sw.txt"
    moved.parent.mkdir()
    (tmp_path / "sw.txt").rename(moved)
    elsewhere = with_overrides(config, [f"evaluate.texts={moved.parent}/{{language}}.txt"])
    assert read_texts(elsewhere, "sw") == LINES
    with pytest.raises(ConfigError, match=r"sw\.txt: cannot be read as text"):
        fingerprint(with_text, run)


def test_an_evaluation_of_a_former_run_gets_every_measure(run: RunDir, texts: str) -> None:
    former = RunReader(run).scored_items("zero_shot", "sw")
    assert former is not None
    assert (former.measures, former.text) == (None, None)
    config = with_overrides(run.read_config(), [texts])
    Scorer(run.uri, config.model_dump(mode="json")).score(ZERO_SHOT, Identity("evaluate", {"again": 1}, {}), LINES)
    scored, table = RunReader(run).scored_items("zero_shot", "sw"), run.evaluation("zero_shot", "sw").read_table("items.parquet")
    assert scored is not None
    assert scored.measures is not None
    assert scored.text is not None
    assert table.schema.equals(schemas.SCORED)
    assert scored.item_ids == former.item_ids
    assert scored.correct.tolist() == former.correct.tolist()
    assert scored.chance.tolist() == (1 / scored.measures.options).tolist()
    assert scored.text.bytes == len("\n".join(LINES).encode())
    assert scored.text.bits_per_byte == pytest.approx(bits_per_byte(scored.text.nats, scored.text.bytes))
    assert scored.text.perplexity == pytest.approx(perplexity(scored.text.nats, scored.text.tokens))
    names = ("log_probs", "log_prob_sums", "end_log_probs", "tokens")
    for row in table.to_pylist():
        assert not row["truncated"]
        for mean, total, end, tokens in zip(*(row[name] for name in names), strict=False):
            assert mean == pytest.approx((total + (end or 0.0)) / (tokens + (end is not None)), rel=1e-4)


def test_zero_shot_does_not_name_thinned_subjects_of_a_bias_that_its_identity_lacks(run: RunDir) -> None:
    """A reused evaluation has those of no other bias: readers take them from the selection."""
    Scorer(run.uri, run.read_config().model_dump(mode="json")).score(ZERO_SHOT, Identity("evaluate", {"bias": 1}, {}))
    table = run.evaluation("zero_shot", "sw").read_table("items.parquet")
    scored, allocation = RunReader(run).scored_items("zero_shot", "sw"), RunReader(run).allocation("compass", "sw")
    assert table["thinned"].null_count == table.num_rows
    assert scored is not None
    assert allocation is not None
    assert (scored.low_subjects, low_subjects(RunReader(run), "sw")) == ((), frozenset(allocation.low_subjects))


@pytest.mark.shared_data
def test_the_layout_of_parallel_texts_and_items_of_many_languages(shared_data: Path) -> None:
    """One text file for each language, with equally many lines; and items whose id is shared by languages."""
    overrides = [f"evaluate.texts={shared_data}/ntrex/{{language}}.txt.xz", "evaluate.text_lines=null"]
    overrides += [
        f"pool.{sets}={{path: {shared_data}/global_mmlu, name: '{{language}}', split: {split}}}" for sets, split in SETS
    ]
    config = load_run_config("atlas-test", overrides=overrides)
    assert {len(read_texts(config, code) or ()) for code in ("sw", "ja")} == {1997}
    items = {code: read_guide_and_test(config.pool, code).test for code in ("sw", "yo")}
    ids = {code: set(table["sample_id"].to_pylist()) for code, table in items.items()}
    assert all(len(ids[code]) == table.num_rows for code, table in items.items())
    assert len(ids["sw"] & ids["yo"]) > 100
    families = join_families(items["sw"]["family"].to_pylist(), {"names": ["region", "language"], "facts": ["fact", "gap"]})
    assert set(families) == {"emoji", "names", "facts", "topic", "pick", "translation"}
