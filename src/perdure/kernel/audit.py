"""The correctness theorem, checked over one run's history: completeness, ordering, atomicity, consistency.

Source: docs/architecture, section 1; the invariants' ids are those of the reliability page. A2 (an outcome and what
follows from it appear in one commit) shows here as K2 and K3: row, wait and digests agree with the last fact.
"""

from __future__ import annotations

from perdure.kernel.audit_atomicity import atomicity
from perdure.kernel.audit_completeness import completeness, wake_sources
from perdure.kernel.audit_consistency import consistency
from perdure.kernel.audit_ordering import ordering
from perdure.kernel.audit_report import CONDITIONS, AuditReport, Check, Violation
from perdure.kernel.audit_store import audit_store
from perdure.kernel.audit_subject import ReplayResult, Subject, View
from perdure.kernel.audit_tail import AuditTail

__all__ = [
    "CONDITIONS",
    "AuditReport",
    "AuditTail",
    "Check",
    "ReplayResult",
    "Subject",
    "Violation",
    "audit",
    "audit_store",
    "wake_sources",
]


def audit(subject: Subject) -> AuditReport:
    """Check the four conditions over one run; a damaged history is reported, never raised."""
    view = View(subject)
    checks = [*completeness(view), *ordering(view), *atomicity(view), *consistency(view)]
    return AuditReport(f"run {subject.row.id}", tuple(checks))
