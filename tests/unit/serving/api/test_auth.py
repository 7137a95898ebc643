"""Hashed API keys: their sources, and which keys are accepted."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from compass_ray.config import ConfigError
from compass_ray.serving.api.auth import ENVIRONMENT_VARIABLE, ApiKeys, KeyOwner, hash_key


def test_a_hash_is_what_sha256sum_says() -> None:
    assert hash_key("sésame") == hashlib.sha256("sésame".encode()).hexdigest()


def test_without_a_source_no_key_is_needed() -> None:
    assert not ApiKeys.load({}).required


def test_a_file_has_one_hash_per_line_with_or_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\namina:{hash_key('one').upper()}\n  {hash_key('two')}  # juma's\n")
    keys = ApiKeys.load({}, file)
    assert keys.find_owner("Bearer one") == KeyOwner("amina", hash_key("one")[:12])
    assert keys.find_owner("bearer  two ") == KeyOwner(hash_key("two")[:12], hash_key("two")[:12])


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    keys = ApiKeys.load({ENVIRONMENT_VARIABLE: f"a:{hash_key('one')}, {hash_key('two')}"}, tmp_path / "missing")
    assert keys.find_owner("Bearer one")
    assert keys.find_owner("Bearer two")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer two", "one", "Basic", "Basic one", "Basic " + base64.b64encode(b"\xff:one").decode()],
)
def test_any_other_header_has_no_owner(header: str | None) -> None:
    assert ApiKeys({hash_key("one"): "amina"}).find_owner(header) is None


def test_the_password_of_basic_authentication_is_a_key() -> None:
    header = "Basic " + base64.b64encode(b"x:one:more").decode()
    assert ApiKeys({hash_key("one:more"): "amina"}).find_owner(header)


def test_a_hash_is_no_key() -> None:
    assert ApiKeys({hash_key("one"): "amina"}).find_owner(f"Bearer {hash_key('one')}") is None


def test_the_empty_key_is_never_accepted() -> None:
    keys = ApiKeys({hash_key(""): "nobody"})
    assert keys.find_owner(None) is None
    assert keys.find_owner("Bearer ") is None


@pytest.mark.parametrize("text", ["", " , ", "# nothing"])
def test_a_source_without_a_key_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="has no key"):
        ApiKeys.load({ENVIRONMENT_VARIABLE: text})


def test_a_key_that_was_not_hashed_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{hash_key('one')}\nsesame-in-the-clear\n")
    with pytest.raises(ConfigError, match="entry 2: expected the SHA-256") as refused:
        ApiKeys.load({}, file)
    assert "sesame" not in str(refused.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ApiKeys.load({}, tmp_path / "keys")
