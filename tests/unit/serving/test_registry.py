"""Live pointers: promotion, refusal, rollback and their lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray.artifacts import RunDir
from compass_ray.serving import registry
from compass_ray.serving.registry import AdapterName, RegistryError
from tests.unit.serving.fakes import Clock, MakeAdapter


def _kinds(run: RunDir) -> list[tuple[str, str | None, str]]:
    return [(line["kind"], line["from"], line["to"]) for line in registry.decisions(run)]


def test_promotion_and_rollback_leave_a_lineage(run: RunDir, make_adapter: MakeAdapter, clock: Clock) -> None:
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
        registry.promote(run, "sw", version, reason="better", evidence={"prompts": 7}, clock=clock)
        clock.now += 10
    assert registry.served(run) == {"sw": "v0003"}
    registry.roll_back(run, "sw", clock=clock)
    assert registry.served(run) == {"sw": "v0002"}
    registry.roll_back(run, "sw", clock=clock)
    assert registry.served(run) == {"sw": "v0001"}
    with pytest.raises(RegistryError, match="no earlier"):
        registry.roll_back(run, "sw", clock=clock)
    promotions = [("promotion", None, "v0001"), ("promotion", "v0001", "v0002"), ("promotion", "v0002", "v0003")]
    assert _kinds(run) == [*promotions, ("rollback", "v0003", "v0002"), ("rollback", "v0002", "v0001")]
    first = registry.decisions(run)[0]
    assert (first["time"], first["reason"], first["prompts"]) == (1000.0, "better", 7)


def test_promoting_the_live_version_again_changes_nothing(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    first = registry.promote(run, "sw", "v0001")
    assert registry.promote(run, "sw", "v0001") == first
    assert len(registry.decisions(run)) == 1


def test_a_damaged_version_is_refused_and_the_live_one_stays(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "v0002")
    registry.promote(run, "sw", "v0001")
    (Path(run.adapter("sw", "v0002").path) / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(RegistryError, match=r"damaged.*v0001, v0002"):
        registry.promote(run, "sw", "v0002")
    assert registry.served(run) == {"sw": "v0001"}


def test_a_version_for_another_base_is_refused(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001", base="organisation/other")
    with pytest.raises(RegistryError, match=r"organisation/other.*train it again"):
        registry.promote(run, "sw", "v0001")
    assert registry.served(run) == {}


def test_a_version_that_is_not_there_is_refused(run: RunDir) -> None:
    with pytest.raises(RegistryError, match=r"missing.*none"):
        registry.promote(run, "sw", "v0009")


def test_entries_and_catalogue_show_whole_versions_only(run: RunDir, make_adapter: MakeAdapter) -> None:
    make_adapter("sw", "v0001")
    make_adapter("sw", "target")
    (Path(run.adapter("sw", "v0002").path)).mkdir(parents=True)
    registry.promote(run, "sw", "v0001")
    found = {str(entry.name): entry.live for entry in registry.entries(run, ["sw", "de"])}
    assert found == {"sw@target": False, "sw@v0001": True}
    catalogue = registry.catalogue(run, ["sw", "de"])
    assert catalogue.live == {"sw": "v0001"}
    assert catalogue.has(AdapterName("sw", "target"))
    assert not catalogue.has(AdapterName("sw", "v0002"))


@pytest.mark.parametrize("text", ["", "sw", "sw@", "@v1"])
def test_what_is_no_adapter_name(text: str) -> None:
    with pytest.raises(ValueError, match="language@version"):
        AdapterName.parse(text)


def test_a_promotion_that_another_overtook_is_refused_and_the_other_stays(
    run: RunDir, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes while the version is being verified, which takes longest."""
    for version in ("v0001", "v0002", "v0003"):
        make_adapter("sw", version)
    registry.promote(run, "sw", "v0001")
    verify, others = registry._fit_to_serve, ["v0003"]

    def overtaken(*words: Any) -> Any:
        if others:
            registry.promote(run, "sw", others.pop())
        return verify(*words)

    monkeypatch.setattr(registry, "_fit_to_serve", overtaken)
    with pytest.raises(RegistryError, match=r"sw was changed meanwhile .*v0003 is live now, and v0002 is not; look"):
        registry.promote(run, "sw", "v0002")
    assert registry.served(run) == {"sw": "v0003"}
    assert [line["to"] for line in registry.decisions(run)] == ["v0001", "v0003"]
