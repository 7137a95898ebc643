"""Live pointers: promotion, refusal, rollback, pins, and versions with their lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray import registry
from compass_ray.artifacts import Identity, RunDir, jsonl_log
from compass_ray.config import RunConfig, parse_config
from compass_ray.records.checks import StatTestRecord
from compass_ray.registry import AdapterName, RegistryError, promotion
from tests.unit.fakes import Clock, MakeAdapter

TEST = StatTestRecord(name="loss", p_value=0.001, level=0.01, effect=0.3, floor=0.1, n_reference=50, n_window=50)


def _kinds(run: RunDir) -> list[tuple[str, str | None, str]]:
    return [(line["kind"], line["from"], line["to"]) for line in jsonl_log.read(run, "decisions.jsonl")]


def test_promotion_and_rollback_leave_a_lineage(run: RunDir, make_adapter: MakeAdapter, clock: Clock) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version, reason="better", evidence=[TEST], clock=clock)
        clock.now += 10
    assert registry.live_versions(run) == {"sw": "v0003"}
    registry.roll_back(run, "sw", clock=clock)
    assert registry.live_versions(run) == {"sw": "v0002"}
    registry.roll_back(run, "sw", clock=clock)
    assert registry.live_versions(run) == {"sw": "v0001"}
    with pytest.raises(RegistryError, match="no earlier"):
        registry.roll_back(run, "sw", clock=clock)
    promotions = [("promotion", None, "v0001"), ("promotion", "v0001", "v0002"), ("promotion", "v0002", "v0003")]
    assert _kinds(run) == [*promotions, ("rollback", "v0003", "v0002"), ("rollback", "v0002", "v0001")]
    first = jsonl_log.read(run, "decisions.jsonl")[0]
    assert (first["time"], first["reason"], first["legs"]) == (1000.0, "better", [TEST.to_json()])


def test_a_rollback_of_a_named_version_records_its_evidence_and_moves_no_other(run: RunDir, make_adapter: MakeAdapter) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version)
    with pytest.raises(RegistryError, match="sw@v0002 is not live; v0003 is"):
        registry.roll_back(run, "sw", version="v0002")
    assert registry.roll_back(run, "sw", version="v0003", reason="worse", evidence=[TEST])["version"] == "v0002"
    last = jsonl_log.read(run, "decisions.jsonl")[-1]
    assert (last["kind"], last["reason"], last["legs"]) == ("rollback", "worse", [TEST.to_json()])


def test_promoting_the_live_version_again_changes_nothing(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    first = registry.promote(run, "sw", "v0001")
    assert registry.promote(run, "sw", "v0001") == first
    assert len(jsonl_log.read(run, "decisions.jsonl")) == 1


def test_a_damaged_version_is_refused_and_the_live_one_stays(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    (Path(run.adapter("sw", "v0002").path) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(RegistryError, match=r"damaged.*Other complete versions of sw: v0001\.$"):
        registry.promote(run, "sw", "v0002")
    assert registry.live_versions(run) == {"sw": "v0001"}


def test_a_version_for_another_base_is_refused(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001", base="organisation/other")
    with pytest.raises(RegistryError, match=r"organisation/other.*Train it again"):
        registry.promote(run, "sw", "v0001")
    assert registry.live_versions(run) == {}


def test_a_version_that_is_not_there_is_refused(run: RunDir) -> None:
    with pytest.raises(RegistryError, match=r"no such complete version.*none"):
        registry.promote(run, "sw", "v0009")


def test_entries_and_catalogue_show_only_complete_versions(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "target")
    (Path(run.adapter("sw", "v0002").path)).mkdir(parents=True)
    registry.promote(run, "sw", "v0001")
    found = {str(entry.name): entry.live for entry in registry.list_versions(run, ["sw", "de"])}
    assert found == {"sw@target": False, "sw@v0001": True}
    catalogue = registry.read_catalogue(run, ["sw", "de"])
    assert catalogue.live == {"sw": "v0001"}
    assert catalogue.has_version(AdapterName("sw", "target"))
    assert not catalogue.has_version(AdapterName("sw", "v0002"))


@pytest.mark.parametrize("text", ["", "sw", "sw@", "@v1"])
def test_an_invalid_adapter_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="language@version"):
        AdapterName.parse(text)


def test_a_promotion_that_loses_a_race_is_refused_and_the_winner_stays(
    run: RunDir, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other promotion happens while the version is verified, the longest step."""
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001")
    verify, others = promotion.verify_servable, ["v0003"]

    def overtaken(*words: Any) -> Any:
        if others:
            registry.promote(run, "sw", others.pop())
        return verify(*words)

    monkeypatch.setattr(promotion, "verify_servable", overtaken)
    with pytest.raises(RegistryError, match=r"Conflict: .*v0003 is live now\. The promotion of v0002 was not applied"):
        registry.promote(run, "sw", "v0002")
    assert registry.live_versions(run) == {"sw": "v0003"}
    assert [line["to"] for line in jsonl_log.read(run, "decisions.jsonl")] == ["v0001", "v0003"]


def test_only_force_promotes_in_a_pinned_language(run: RunDir, make_adapter: MakeAdapter, clock: Clock) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001")
    registry.promote(run, "sw", "v0002")
    pinned = registry.pin(run, "sw", reason="an exam is on", clock=clock)
    message = r"sw is pinned to v0002 \(an exam is on\), so its live version cannot change\. .*adapters unpin .* sw"
    for change in (
        lambda: registry.promote(run, "sw", "v0003"),
        lambda: registry.roll_back(run, "sw"),
        lambda: registry.require_unpinned(run, "sw"),
    ):
        with pytest.raises(RegistryError, match=message):
            change()
    assert registry.promote(run, "sw", "v0002") == pinned == registry.pin(run, "sw", reason="again")
    assert registry.promote(run, "sw", "v0003", force=True)["pinned"] == {"since": 1000.0, "reason": "an exam is on"}
    registry.unpin(run, "sw")
    assert registry.roll_back(run, "sw")["version"] == "v0002"
    with pytest.raises(RegistryError, match="sw is not pinned; its live version v0002 can be replaced"):
        registry.unpin(run, "sw")
    assert [line["kind"] for line in jsonl_log.read(run, "decisions.jsonl")][2:] == ["pin", "promotion", "unpin", "rollback"]


@pytest.mark.parametrize("change", [registry.pin, registry.unpin, registry.stop_canary, registry.stop_shadow])
def test_a_language_without_a_live_version_gets_the_remedy(run: RunDir, make_adapter: MakeAdapter, change: Any) -> None:
    make_adapter("sw", "v0001")
    with pytest.raises(RegistryError, match=r"sw has no live version\. .*adapters promote .* sw VERSION .*v0001\)"):
        change(run, "sw")


def test_entries_contain_the_lineage_of_a_version(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    first = run.adapter("sw", "v0001").require()
    inputs = {"selections/v0002/sw": "abc", "parent": first.fingerprint}
    run.adapter("sw", "v0002").begin(Identity("train", {"base_model": "b"}, inputs)).publish({"rows": 12})
    update = run.update("sw", "v0002").begin(Identity("update", {}, {}))
    update.write_json("gate.json", {"window_before": 2.0, "window_after": 1.5, "accepted": True})
    update.publish()
    run.evaluation("compass", "sw").begin(Identity("evaluate", {}, {})).publish({"accuracy": 0.5})
    registry.promote(run, "sw", "v0001")
    registry.pin(run, "sw")
    one, two = registry.list_versions(run, ["sw"])
    assert (one.live, one.pinned, one.lineage.parent, one.gate, one.accuracy) == (True, True, None, {}, 0.5)
    assert (two.live, two.lineage.parent, two.gate["window_after"], two.metrics) == (False, "v0001", 1.5, {"rows": 12})
    assert (two.lineage.trained_on, two.lineage.base_model) == ({"selections/v0002/sw": "abc"}, "b")


def test_entries_handle_a_damaged_manifest_and_a_removed_parent(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    run.adapter("sw", "v0003").begin(Identity("train", {}, {"parent": "0123"})).publish()
    run.adapter("sw", "v0001").store_bytes("manifest.json", b"{")
    one, three = registry.list_versions(run, ["sw"])
    assert "manifest.json is damaged" in one.problem
    assert three.lineage.parent == "(removed, fingerprint 0123)"


DAMAGED = [
    b"{",
    b"[]",
    b"null",
    b"",
    b"{}",
    b'{"version": ""}',
    b'{"version": "../x"}',
    b'{"version": 7}',
    b'{"version": "v0001", "canary": {"version": "v0002", "share": 1.5}}',
    b'{"version": "v0001", "canary": {"version": "v0002"}}',
    b'{"version": "v0001", "history": [{}]}',
]


def _write_pointer(run: RunDir, data: bytes) -> None:
    file = Path(run.path) / "serving" / "live" / "sw.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


@pytest.mark.parametrize("data", DAMAGED)
def test_the_error_of_a_damaged_pointer_names_a_remedy_that_works(run: RunDir, make_adapter: MakeAdapter, data: bytes) -> None:
    make_adapter("sw", "v0001")
    _write_pointer(run, data)
    for change in (registry.roll_back, registry.pin, registry.require_unpinned, lambda *a: registry.promote(*a, "v0001")):
        with pytest.raises(RegistryError, match=r"live pointer of sw cannot be read .*adapters promote .* sw VERSION --force"):
            change(run, "sw")
    assert all("cannot be read" in entry.problem for entry in registry.list_versions(run, ["sw"]))
    registry.promote(run, "sw", "v0001", force=True)
    assert registry.live_versions(run) == {"sw": "v0001"}


@pytest.mark.parametrize("more", [{}, {"history": []}, {"since": 5.0, "reason": "old", "history": [{"version": "v0001"}]}])
def test_a_pointer_of_an_older_version_is_read_and_changed(run: RunDir, make_adapter: MakeAdapter, more: dict[str, Any]) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    run.set_live("sw", {"version": "v0001", **more})
    assert registry.live_versions(run) == {"sw": "v0001"}
    registry.set_canary(run, "sw", "v0002", 0.1)
    registry.promote(run, "sw", "v0002")
    assert registry.roll_back(run, "sw")["version"] == "v0001"


def test_what_a_newer_version_adds_to_a_pointer_is_kept(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    run.set_live("sw", {"version": "v0001", "weights": {"v0001": 1}})
    assert registry.promote(run, "sw", "v0002")["weights"] == {"v0001": 1}


def test_first_promotions_skip_a_damaged_version(run: RunDir, config: RunConfig, make_adapter: MakeAdapter) -> None:
    for code in ("sw", "de"):
        make_adapter(code, "v0001")
    (Path(run.adapter("sw", "v0001").path) / "adapter_model.safetensors").write_bytes(b"torn")
    refused = registry.promote_first_versions(config, run)
    assert list(refused) == ["sw"]
    assert "damaged" in refused["sw"]
    assert dict(registry.live_versions(run)) == {"de": "v0001"}


def test_first_promotions_skip_a_damaged_pointer(run: RunDir, config: RunConfig, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("de", "v0001")
    _write_pointer(run, b"{")
    registry.promote_first_versions(config, run)
    assert registry.live_versions(run) == {"de": "v0001"}
    assert "live pointer of sw" in registry.read_catalogue(run, ["sw", "de"]).problems["sw"]


def test_a_version_is_refused_with_the_remedy_if_the_base_model_moved(
    run: RunDir, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    make_adapter("sw", "v0001")
    base = tmp_path / "moved"
    run.write_config(parse_config({"languages": ["sw", "de"], "train": {"base_model": str(base)}}))
    with pytest.raises(RegistryError, match=f"base_model '{base}' does not exist on this machine.*adapt' again with its present"):
        registry.promote(run, "sw", "v0001")
