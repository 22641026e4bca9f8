"""What users test with: a simulated clock and world, crash points, the store conformance suite, strategies.

May import: everything.
"""
