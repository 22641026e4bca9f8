"""Where COMMIT runs (S30)."""

from __future__ import annotations

from perdure.state.sqlite_pace import BESIDE_MAX, LOOK_EVERY, Pace


def test_a_slow_disk_moves_commit_to_a_thread() -> None:
    """Goal: a loop is not held up by a disk that takes long to sync."""
    pace = Pace(0.005)
    for _ in range(LOOK_EVERY):
        pace.took(0.006, 1)
    assert pace.slow


def test_a_quick_disk_leaves_it_on_the_loop_however_large_the_batches_are() -> None:
    """Goal: what a large batch takes to be written is not taken for the slowness of the disk."""
    pace = Pace(0.005)
    for _ in range(10 * LOOK_EVERY):
        pace.took(0.011, 4_000)
    assert not pace.slow


def test_it_comes_back_when_the_disk_is_quick_again_and_goes_when_it_is_not() -> None:
    """Goal: one bad minute of the disk does not keep COMMIT beside the loop for good."""
    pace = Pace(0.005)
    for _ in range(LOOK_EVERY):
        pace.took(0.006, 1)
    for _ in range(BESIDE_MAX):
        assert pace.slow
        pace.beside()
    for _ in range(2 * LOOK_EVERY):
        assert not pace.slow
        pace.took(0.001, 1)
    for _ in range(3 * LOOK_EVERY):
        pace.took(0.006, 1)
    assert pace.slow
