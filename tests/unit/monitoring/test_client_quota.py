"""A bound on items that is fair by client, compared with a plain count."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from compass_ray.monitoring.client_quota import ClientQuota, ClientRanking


@given(
    added=st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc"), st.integers(0, 50)), max_size=80),
    max_items=st.integers(1, 10),
    max_bytes=st.integers(50, 200),
    evict_newest=st.booleans(),
)
def test_the_bounds_hold_and_names_and_sizes_stay_consistent(
    added: list[tuple[int, str, int]], max_items: int, max_bytes: int, evict_newest: bool
) -> None:
    quota, held = ClientQuota[int](max_items, max_bytes, evict_newest=evict_newest), dict[int, tuple[str, int]]()
    for item, client, size in added:
        if not size:
            quota.remove(item)
            held.pop(item, None)
            continue
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


def test_many_new_clients_displace_no_earlier_one() -> None:
    quota = ClientQuota[str](60, 10**9, evict_newest=True)
    for number in range(50):
        quota.add(f"own-{number}", f"client-{number}", 1)
    lost = [name for number in range(500) for name in quota.add(f"flood-{number}", f"network-{number}", 1)]
    assert lost == [f"flood-{number}" for number in range(10, 500)]


def test_a_full_log_keeps_the_newest_of_equal_clients() -> None:
    quota = ClientQuota[int](3, 10**9)
    assert [quota.add(number, f"client-{number}", 1) for number in range(6)] == [[], [], [], [0], [1], [2]]


def test_a_ranking_holds_few_outdated_entries() -> None:
    ranking = ClientRanking(newest_first=True)
    ranking.add("one", 1)
    for _ in range(1000):
        ranking.add("two", 5)
        ranking.add("two", -5)
    assert ranking.largest() == "one"
    assert len(ranking) < 100
