"""The atlas: hub layout, no leak between pool and test of a language, nothing to guess from letters, always the same."""

import hashlib
import subprocess
import sys
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.languages import GLOBAL_MMLU as CODES
from compass_ray.languages import LANGUAGES, UnknownLanguageError
from compass_ray.sources.atlas import CONTENT_HASH, SMALL, atlas_guide, atlas_pool, atlas_test, subjects
from compass_ray.sources.atlas.question_templates import render_question
from compass_ray.sources.atlas.splits import FULL, Split, named_facts
from tests.unit.sources.atlas_export import export

AYA = ["inputs", "targets", "language", "language_code", "annotation_type", "user_id"]
GLOBAL_MMLU = [
    *["sample_id", "subject", "subject_category", "question", "option_a", "option_b", "option_c", "option_d", "answer"],
    *["required_knowledge", "time_sensitive", "reference", "culture", "region", "country"],
    *["cultural_sensitivity_label", "is_annotated"],
]
OPTIONS = ["option_a", "option_b", "option_c", "option_d"]


@pytest.fixture(scope="module")
def pool() -> pa.Table:
    return atlas_pool()


def test_the_pool_has_the_fields_of_aya_and_a_subject(pool: pa.Table) -> None:
    assert pool.schema.names == [*AYA, "subject"]
    assert set(pool.schema.types) == {pa.string()}


def test_items_have_the_fields_of_global_mmlu() -> None:
    for table in (atlas_guide("sw"), atlas_test("sw")):
        assert table.schema.names == GLOBAL_MMLU
        assert table.schema.field("is_annotated").type == pa.bool_()


def test_the_pool_holds_42_languages_and_enough_rows(pool: pa.Table) -> None:
    assert set(pool["language_code"].to_pylist()) == {LANGUAGES[code].aya_code for code in CODES}
    assert 14_000 <= pool.num_rows <= 25_000


def test_there_are_at_least_20_subjects() -> None:
    assert len(subjects()) >= 20
    assert {each.fact.subject for each in named_facts("sw")} == set(subjects())


@pytest.mark.parametrize("code", CODES)
def test_guide_prompts_cover_the_subjects_of_the_test(code: str) -> None:
    assert set(atlas_guide(code)["subject"].to_pylist()) >= set(atlas_test(code)["subject"].to_pylist())


def test_nothing_tested_in_a_language_is_in_its_pool_by_brute_force(pool: pa.Table) -> None:
    for code in CODES:
        rows = [row for row in pool.to_pylist() if row["language_code"] == LANGUAGES[code].aya_code]
        taught = {(row["inputs"], row["targets"]) for row in rows}
        for each in named_facts(code):
            if each.split is not Split.POOL:
                asked = {
                    (render_question(code, each.fact.template, each.question_name, wording), each.answer) for wording in (0, 1)
                }
                assert not asked & taught


def test_the_two_directions_of_a_fact_are_never_parted() -> None:
    for code in CODES:
        places: dict[str, set[Split]] = {}
        for each in named_facts(code):
            places.setdefault(each.fact.knowledge, set()).add(each.split)
        assert all(len(found) == 1 for found in places.values())


def test_most_facts_tested_in_a_language_stand_in_other_pools() -> None:
    taught = Counter(each.fact.fact_id for code in CODES for each in named_facts(code) if each.split is Split.POOL)
    tested = [each.fact.fact_id for code in CODES for each in named_facts(code) if each.split is Split.TEST]
    assert sum(taught[each] > 0 for each in tested) / len(tested) > 0.95


@pytest.mark.parametrize("code", ["am", "en", "ja", "ny", "zh"])
def test_items_have_four_distinct_options_and_even_letters(code: str) -> None:
    items = atlas_test(code).to_pylist()
    assert all(len({item[option] for option in OPTIONS}) == 4 for item in items)
    letters = Counter(item["answer"] for item in items)
    assert max(letters.values()) - min(letters.values()) <= 1


def test_letters_do_not_give_the_answer_away() -> None:
    hits = [_guess(code, item) for code in CODES for item in atlas_test(code).to_pylist()[::4]]
    assert sum(hits) / len(hits) == pytest.approx(0.25, abs=0.04)


def _guess(code: str, item: dict[str, str]) -> float:
    asked = _asked(code, item)
    scores = [SequenceMatcher(None, asked, item[option].casefold(), autojunk=False).ratio() for option in OPTIONS]
    best = [index for index, score in enumerate(scores) if score == max(scores)]
    return ("ABCD".index(item["answer"]) in best) / len(best)


def _asked(code: str, item: dict[str, str]) -> str:
    facts = {f"atlas/{each.fact.fact_id}": each.question_name for each in named_facts(code)}
    return facts[item["sample_id"].rsplit("/", 1)[0]].casefold()


def test_another_process_and_another_order_give_the_same_rows() -> None:
    program = (
        "import hashlib; from compass_ray.sources.atlas import atlas_test\n"
        "tables = {code: atlas_test(code) for code in ('zh', 'hi', 'he', 'sw')}\n"
        "print(hashlib.sha256(str(tables['sw'].to_pylist()).encode()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(str(atlas_test("sw").to_pylist()).encode()).hexdigest()


def test_the_small_size_is_small() -> None:
    assert atlas_pool(SMALL).num_rows < atlas_pool(FULL).num_rows / 5
    with pytest.raises(ValueError, match="not in this size"):
        atlas_test("yo", SMALL)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(UnknownLanguageError, match="'sw'"):
        atlas_guide("swh")


def test_an_export_has_the_folders_of_the_hub(tmp_path: Path) -> None:
    export(tmp_path, SMALL)
    assert pq.read_table(tmp_path / "aya_dataset/data/train-00000-of-00001.parquet").equals(atlas_pool(SMALL))
    for split, table in (("dev", atlas_guide("am", SMALL)), ("test", atlas_test("am", SMALL))):
        assert pq.read_table(tmp_path / f"global_mmlu/am/{split}-00000-of-00001.parquet").equals(table)


def test_the_hub_loader_reads_an_export(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export(tmp_path / "out", SMALL)
    cache = str(tmp_path / "cache")
    pool = datasets.load_dataset(str(tmp_path / "out/aya_dataset"), split="train", cache_dir=cache)
    items = datasets.load_dataset(str(tmp_path / "out/global_mmlu"), "sw", cache_dir=cache)
    assert pool.num_rows == atlas_pool(SMALL).num_rows
    assert items["test"].column_names == GLOBAL_MMLU


def test_the_content_hash_belongs_to_the_generated_data() -> None:
    digest = hashlib.sha256()
    tables = [atlas_pool(SMALL)]
    tables += [make(code, SMALL) for code in SMALL.languages for make in (atlas_guide, atlas_test)]
    for table in tables:
        for row in table.to_pylist():
            digest.update(repr(row).encode())
    expected = "8baf87c6589721fe6e16cf76fcf171b9908776db58011b6b7727781738103794"
    assert (CONTENT_HASH, digest.hexdigest()) == ("3269e76ccc824504", expected), "change CONTENT_HASH with the data"
