"""Credentials never leave a URI that is shown, and everything else stays as it is."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.redaction import redact, redact_tree, redact_uris

_SECRET = "Zq9" + "x7Kp" * 8
_letters = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
_passwords = st.text(string.ascii_letters + string.digits + "+=:!$%-_.~", min_size=0, max_size=8)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://AKIA:{_SECRET}@bucket/run",
        f"s3://AKIA:ab/{_SECRET}@bucket/run",
        f"s3:/AKIA:{_SECRET}@bucket/run",
        f"s3://AKIA:a@b{_SECRET}@bucket/run",
        f"s3://AKIA:12/{_SECRET}@bucket/run",
        f"s3://AKIA:hu {_SECRET}@bucket/run",
        f"--run 's3://AKIA:hu {_SECRET}@bucket/run' is a file",
        f"s3://AKIA:hu'{_SECRET}@bucket/run",
        f's3://AKIA:hu"{_SECRET}?@bucket/run',
        f"s3://AKIA:hu {_SECRET}@x{_SECRET}@bucket/run",
        f"https://user:hu {_SECRET}'@host/run",
        f"https://{_SECRET}@host/run",
        f"https://{_SECRET * 40}@host/run",
        f"https://user:{_SECRET}@host:8000/v1?x=1",
        f"--run 's3://AKIA:{_SECRET}@bucket/run' is a file",
        f"s3://bucket/run?secret_key={_SECRET}&region=eu",
        f"https://host/run?X-Amz-Credential={_SECRET}",
        f"https://host/run?part=1&X-Amz-Signature={_SECRET}",
        f"https://host/run?X-Amz-Security-Token={_SECRET}",
        f"https://account.blob/run?sv=1&sig={_SECRET}",
        f"gs://bucket/run?access_token={_SECRET}",
        f"https://host/x?api_key={_SECRET}",
        f"https://host/x?AWSAccessKeyId={_SECRET}&Signature={_SECRET}",
        f"token hf_{_SECRET} is invalid",
        f"Authorization: Bearer {_SECRET}",
    ],
)
def test_no_credential_is_shown(text: str) -> None:
    shown = redact(text)
    assert _SECRET not in shown
    assert "***" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/runs/mine?region=eu-central-1&endpoint_override=127.0.0.1:9000",
        "http://127.0.0.1:8000/v1/models/sw@v0001",
        "compass-ray adapters promote /runs/mine sw@v0002",
        "hf://datasets/owner/name@main",
        "http://127.0.0.1:8000 refused; write to amina@example.org",
        "ray://127.0.0.1:10001 refused; write to amina@example.org",
        "s3://bucket: refused; write to amina@example.org",
        "s3://bucket/run: refused; write to amina@example.org",
        "/models/hf_checkpoint2024/hf_finetuned_on_swahili_news",
        "write to amina@example.org",
        "max_tokens=4",
        '{"languages": ["sw"], "train": {"base_model": "owner/name"}}',
        "",
    ],
)
def test_a_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(user=_letters, password=_passwords, secret=st.just(_SECRET), place=_letters)
def test_any_user_and_password_are_removed(user: str, password: str, secret: str, place: str) -> None:
    for given_ in (password + secret, quote(password + secret, safe="")):
        shown = redact(f"error at s3://{user}:{given_}@{place}/run: refused")
        assert secret not in shown
        assert shown.endswith(f"@{place}/run: refused")


@pytest.mark.parametrize("part", ["a:/", "a.", "a://b:", "?token", "&key", "hf_a", "Bearer ", "a:/b:c ", "s3://a:'"])
@pytest.mark.timeout(60)
def test_a_part_that_repeats_does_not_multiply_the_time(part: str) -> None:
    """It takes minutes if each of the positions reads the rest of the text."""
    shown = redact(f"{part * 50_000} @ hf_ = s3://k:{_SECRET}@bucket")
    assert _SECRET not in shown


def test_local_paths_in_data_stay_and_uris_are_redacted() -> None:
    tree = {"a": ["/d;key=1/rows.jsonl", f"hf_{_SECRET}"], "b": f"s3://k:{_SECRET}@bucket"}
    assert redact_uris(tree) == {"a": tree["a"], "b": "s3://***@bucket"}


def test_a_tree_is_redacted_at_every_depth() -> None:
    tree = {"a": [{"b": f"s3://k:{_SECRET}@bucket"}, 7, None], f"https://{_SECRET}@host": True}
    assert _SECRET not in str(redact_tree(tree))
    assert redact_tree({"a": (1, 2.5, "x")}) == {"a": [1, 2.5, "x"]}
