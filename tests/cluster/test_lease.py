"""A node's own view of its lease."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.cluster.lease import Lease, granted


def test_a_lease_counts_from_before_the_renewal_was_sent() -> None:
    """Goal: however long the answer took, the node stops before the store lets others take over (F36)."""
    lease = granted(100.0, lease_s=6, every_s=2, margin_s=1)
    assert (lease.ends_at, lease.stops_at, lease.asks_at) == (106, 105, 102)
    later = lease.asked(102.0).renewed(102.0)
    assert (later.ends_at, later.stops_at, later.asks_at) == (108, 107, 104)
    assert later.acts(106.9)
    assert not later.acts(107.0)


def test_a_renewal_without_an_answer_changes_nothing_but_when_to_ask_again() -> None:
    """Goal: a lost answer neither lengthens nor shortens what the node counts on; it asks again soon."""
    lease = granted(100.0)
    lost = lease.asked(102.0)
    assert lost.stops_at == lease.stops_at
    assert lost.asks_at == 102.5
    assert lost.asked(102.5).asks_at == 103.0
    assert lost.renewed(102.0).asks_at == 104.0


def test_a_late_answer_to_an_earlier_renewal_takes_nothing_away() -> None:
    """Goal: answers that overtake each other leave the best that is known."""
    lease = granted(100.0).asked(102.0).asked(102.5).renewed(102.5)
    assert lease.renewed(102.0) == lease


@pytest.mark.parametrize("wrong", [{"every_s": 5.0}, {"margin_s": 4.0}, {"lease_s": 2.0}])
def test_a_lease_that_one_lost_renewal_would_end_is_our_bug(wrong: dict[str, float]) -> None:
    """Goal: settings under which no renewal can come in time are not taken."""
    with pytest.raises(AssertionError):
        granted(0.0, **wrong)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.booleans()), max_size=30))
def test_the_node_never_acts_after_the_end_that_the_store_knows(steps: list[tuple[float, float, bool]]) -> None:
    """Goal: over any delays on the way to the store and back, and any lost answers, own end <= the store's end."""
    now, lease = 10.0, granted(10.0)
    ends = lease.ends_at
    for there, back, answered in steps:
        sent = now
        lease = lease.asked(sent)
        at_store = sent + there
        if at_store >= ends:
            break  # the store may have fenced us: no renewal is granted any more
        ends = at_store + lease.lease_s
        now = at_store + back
        if answered:
            lease = lease.renewed(sent)
        assert lease.ends_at <= ends
        assert lease.asks_at >= sent
    assert isinstance(lease, Lease)
