"""A node's own view of its lease: until when it may act, and when it asks for more."""

from __future__ import annotations

import msgspec

LEASE_S = 6.0  # how long a node may be silent before others may take what it holds
EVERY_S = 2.0  # how often it renews: two renewals may be lost before it has to stop
MARGIN_S = 1.0  # how long before the end it stops: what it takes to cut off attempts and let go
AGAIN_S = 0.5  # after a renewal without an answer


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of its lease.

    Shape: a renewal is granted at some time after it was sent, so the lease lasts at least `lease_s` from `sent_at`,
           when the last renewal that was *granted* was sent. A renewal without an answer proves nothing: the store
           may have granted it or not, and the node counts on what it knows.
    Units: seconds, on a monotonic clock of this machine that goes on while the machine is suspended.
    """

    sent_at: float
    tried_at: float
    lease_s: float = LEASE_S
    every_s: float = EVERY_S
    margin_s: float = MARGIN_S
    again_s: float = AGAIN_S

    def __post_init__(self) -> None:
        assert 0 < self.again_s <= self.every_s < self.lease_s - self.margin_s, "a lease outlasts a lost renewal"

    @property
    def ends_at(self) -> float:
        """Before this the store lets nobody take what this node holds."""
        return self.sent_at + self.lease_s

    @property
    def stops_at(self) -> float:
        """From then on this node must not act any more."""
        return self.ends_at - self.margin_s

    def acts(self, mono: float) -> bool:
        """Whether this node may act now."""
        return mono < self.stops_at

    @property
    def asks_at(self) -> float:
        """When the next renewal is sent: sooner after one that was not answered."""
        if self.tried_at > self.sent_at:
            return self.tried_at + self.again_s
        return self.sent_at + self.every_s

    def asked(self, mono: float) -> Lease:
        """A renewal is about to be sent."""
        return msgspec.structs.replace(self, tried_at=max(self.tried_at, mono))

    def renewed(self, sent_at: float) -> Lease:
        """The renewal sent then was granted; a late answer counts from when it was sent, and never takes away."""
        return msgspec.structs.replace(self, sent_at=max(self.sent_at, sent_at))


def granted(sent_at: float, *, lease_s: float = LEASE_S, every_s: float = EVERY_S, margin_s: float = MARGIN_S) -> Lease:
    """The lease of a node whose registration was sent then."""
    again_s = min(AGAIN_S, every_s)
    return Lease(
        sent_at=sent_at, tried_at=sent_at, lease_s=lease_s, every_s=every_s, margin_s=margin_s, again_s=again_s
    )
