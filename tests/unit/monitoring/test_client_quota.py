"""A bound on items that is fair by client, compared with a plain count."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from compass_ray.monitoring.client_quota import ClientQuota


@given(
    added=st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc"), st.integers(0, 50)), max_size=80),
    max_items=st.integers(1, 10),
    max_bytes=st.integers(50, 200),
)
def test_the_bounds_hold_and_names_and_sizes_stay_consistent(
    added: list[tuple[int, str, int]], max_items: int, max_bytes: int
) -> None:
    quota, held = ClientQuota[int](max_items, max_bytes), dict[int, tuple[str, int]]()
    for item, client, size in added:
        held[item] = client, size
        for evicted in quota.add(item, client, size):
            of, most = held[evicted][0], Counter(c for c, _ in held.values())
            total = Counter[str]()
            for owner, each in held.values():
                total[owner] += each
            assert most[of] == max(most.values()) or total[of] == max(total.values())
            del held[evicted]
        assert len(quota) == len(held) <= max_items
        assert quota.bytes == sum(each for _, each in held.values()) <= max_bytes
        assert all(each in quota for each in held)


@given(st.integers(1, 30), st.integers(1, 200))
def test_a_flood_leaves_what_others_hold(others: int, flood: int) -> None:
    quota = ClientQuota[str](60, 10**9)
    for number in range(others):
        quota.add(f"own-{number}", f"client-{number % 3}", 1)
    for number in range(flood):
        quota.add(f"flood-{number}", "flood", 1)
    assert all(f"own-{number}" in quota for number in range(others))
