"""Hashed API keys: their sources, and which keys are accepted."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from compass_ray.config import ConfigError
from compass_ray.serving.api.auth import ApiKeys, KeyReloader
from compass_ray.serving.api.key_source import ENVIRONMENT_VARIABLE, hash_key, read_keys


def test_a_hash_is_what_sha256sum_says() -> None:
    assert hash_key("sésame") == hashlib.sha256("sésame".encode()).hexdigest()


def test_without_a_source_no_key_is_needed() -> None:
    assert not ApiKeys(read_keys({})).required


def test_a_file_has_one_hash_per_line_with_or_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\namina:{hash_key('one').upper()}\n  {hash_key('two')}  # juma's\n")
    keys = ApiKeys(read_keys({}, str(file)))
    assert keys.find_id("Bearer one") == hash_key("one")[:12]
    assert keys.find_id("bearer  two ") == hash_key("two")[:12]


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    keys = ApiKeys(read_keys({ENVIRONMENT_VARIABLE: f"a:{hash_key('one')}, {hash_key('two')}"}, str(tmp_path / "missing")))
    assert keys.find_id("Bearer one")
    assert keys.find_id("Bearer two")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer two", "one", "Basic", "Basic one", "Basic " + base64.b64encode(b"\xff:one").decode()],
)
def test_any_other_header_has_no_owner(header: str | None) -> None:
    assert ApiKeys({hash_key("one"): "amina"}).find_id(header) is None


def test_the_password_of_basic_authentication_is_a_key() -> None:
    header = "Basic " + base64.b64encode(b"x:one:more").decode()
    assert ApiKeys({hash_key("one:more"): "amina"}).find_id(header)


def test_a_hash_is_no_key() -> None:
    assert ApiKeys({hash_key("one"): "amina"}).find_id(f"Bearer {hash_key('one')}") is None


def test_the_empty_key_is_never_accepted() -> None:
    keys = ApiKeys({hash_key(""): "nobody"})
    assert keys.find_id(None) is None
    assert keys.find_id("Bearer ") is None


@pytest.mark.parametrize("text", ["", " , ", "# nothing"])
def test_a_source_without_a_key_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="has no key"):
        read_keys({ENVIRONMENT_VARIABLE: text})


ONE, TWO = hash_key("one"), hash_key("two")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sesame-in-the-clear", "no hashed key"),
        ("amina:", "no hashed key"),
        (":", "no hashed key"),
        (f"{ONE[:-1]}", "no hashed key"),
        (f"{ONE}  -", "no hashed key"),
        (f"amina:{ONE} juma:{TWO}", "no hashed key"),
        (f"amina:{ONE},juma:", "no hashed key"),
        (f"amina:{hash_key('')}", "hash of an empty key"),
        (f"amina:{TWO}", "there twice"),
    ],
)
def test_an_incomplete_entry_is_an_error_that_names_file_and_line_and_not_the_entry(
    tmp_path: Path, line: str, problem: str
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\njuma:{TWO}\n{line}\n")
    with pytest.raises(ConfigError, match=f"{file}, line 3: .*{problem}") as refused:
        read_keys({}, str(file))
    assert "sesame" not in str(refused.value)
    assert ONE[:-1] not in str(refused.value)


def test_keys_between_commas_are_all_accepted(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\ufeffamina:{ONE}, juma: {TWO},  # two of them, on one line\r\n")
    assert read_keys({}, str(file)) == {ONE: "amina", TWO: "juma"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file} cannot be read"):
        read_keys({}, str(file))


def test_a_new_key_works_and_a_revoked_key_does_not_after_the_next_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"amina:{ONE}")
    keys = ApiKeys(read_keys({}, str(file)))
    file.write_text(f"juma:{TWO}")
    KeyReloader(keys, file).reload()
    assert (keys.find_id("Bearer one"), keys.find_id("Bearer two")) == (None, TWO[:12])


def test_a_file_whose_last_key_was_revoked_refuses_everybody(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = ApiKeys({ONE: "amina"})
    file.write_text("# amina left\n")
    KeyReloader(keys, file).reload()
    assert keys.required
    assert keys.find_id("Bearer one") is None


@pytest.mark.parametrize("content", [None, f"{TWO}\nnonsense"])
def test_a_file_that_became_invalid_changes_no_key_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    keys, file = ApiKeys({ONE: "amina"}), tmp_path / "keys"
    if content:
        file.write_text(content)
    reloader = KeyReloader(keys, file)
    for _ in range(2):
        reloader.reload()
    assert keys.digests == {ONE: "amina"}
    assert str(file) in (reloader.problem or "")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.write_text(TWO)
    reloader.reload()
    assert (reloader.problem, keys.digests) == (None, {TWO: TWO[:12]})


def test_a_uri_of_a_key_file_is_refused_without_its_credentials() -> None:
    with pytest.raises(ConfigError, match=r"s3://\*\*\*@bucket/keys is a URI. Copy the file to this machine"):
        read_keys({}, "s3://AK:secret@bucket/keys")
