"""The fold: the table of moves, generations, steps, and the derived part of a run's row."""

from __future__ import annotations

import itertools

import pytest

from perdure.errors import Remedy
from perdure.kernel.fold import MOVES, IllegalMove, fold, move, undo_targets
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.run import Life, Outcome
from tests.kernel.audit_builders import ONE, History, Raw, chained

KINDS = f.AnyFact.__args__


def test_terminal_states_absorb_all_but_a_retry() -> None:
    """Goal: out of a terminal state only `retry` leads, and out of *completed* nothing does."""
    leaving = {(life, kind) for life, kind in MOVES if life.ended}
    assert leaving == {(Life.FAILED, f.RunRetried), (Life.CANCELLED, f.RunRetried)}


def test_every_kind_of_fact_has_a_move_and_every_life_is_reached() -> None:
    """Goal: the table is whole: no fact is without a place, no life without a way in."""
    assert {kind for _, kind in MOVES} == set(KINDS)
    assert set(MOVES.values()) | {Life.QUEUED} == set(Life)


@pytest.mark.parametrize("life, kind", list(itertools.product(Life, KINDS)))
def test_a_pair_that_is_not_in_the_table_is_an_error(life: Life, kind: type[f.Fact]) -> None:
    """Goal: no default; what is not written is refused with the life, the kind and the place."""
    if (life, kind) in MOVES:
        assert move(life, kind, 3) is MOVES[life, kind]
    else:
        with pytest.raises(IllegalMove, match="fact 3") as caught:
            move(life, kind, 3)
        assert (caught.value.life, caught.value.kind, caught.value.seq) == (life, kind, 3)
        assert caught.value.remedy is Remedy.FIX_STORE


def test_no_history_is_a_queued_run() -> None:
    """Goal: a run that was acknowledged and not begun folds to the row of its start."""
    folded = fold([])
    assert (folded.life, folded.seq, folded.head, folded.generation) == (Life.QUEUED, 0, f.CHAIN_START, 1)


def test_a_completed_run_folds_to_its_row() -> None:
    """Goal: life, number, head, outcome, end, requests and epochs all come from the facts."""
    history = History(request="q0").ask("a#1").fails("a#1").done("a#1").signal("s", "q1").completes(b'{"x":1}')
    facts = chained(history.facts)
    folded = fold(facts)
    assert (folded.life, folded.seq, folded.head) == (Life.COMPLETED, 5, facts[-1].hash)
    assert folded.outcome == Outcome(result=Raw(b'{"x":1}'))
    assert folded.ended_at == facts[-1].fact.at
    assert folded.requests == {"q0": 1, "q1": 4}
    assert folded.epoch == 1
    state = folded.steps[1, "a#1"]
    assert (state.failures, state.outcome, state.end) == (1, "completed", facts[2])


def test_attention_is_open_until_the_run_is_resumed() -> None:
    """Goal: the reason stands in the outcome while it is open, and goes with it."""
    history = History().ask("a#1").add(f.AttentionSet, cause="outcome_unknown", reason="who knows", step="a#1")
    folded = fold(chained(history.facts))
    assert folded.life is Life.ATTENTION
    assert folded.attention is not None
    assert folded.outcome == Outcome(reason="who knows", cause="outcome_unknown", step="a#1")
    history.add(f.RunResumed, by="ann", why="")
    folded = fold(chained(history.facts))
    assert (folded.life, folded.attention, folded.outcome) == (Life.LIVE, None, None)


def test_an_illegal_move_is_raised_or_collected() -> None:
    """Goal: the strict fold refuses; the audit's fold goes on and changes no life."""
    facts = chained(History().completes().signal("s", "q").facts)
    with pytest.raises(IllegalMove):
        fold(facts)
    illegal: list[IllegalMove] = []
    folded = fold(facts, illegal=illegal)
    assert folded.life is Life.COMPLETED
    assert [error.seq for error in illegal] == [3]


def test_a_continued_run_begins_anew() -> None:
    """Goal: after `continue_as_new` keys start anew, and the row tells the generation."""
    history = History().ask("a#1").done("a#1").continued(asks=["a#1"]).done("a#1")
    folded = fold(chained(history.facts))
    assert folded.generation == 2
    assert folded.steps[1, "a#1"].end.seq == 2
    assert folded.steps[2, "a#1"].end.seq == 4


def test_a_retried_flow_keeps_the_facts_up_to_keep() -> None:
    """Goal: results and failures before `keep` count in the next generation, those after it do not."""
    history = History().ask("a#1", "b#1", "c#1").done("a#1").fails("b#1").fails("c#1", None).run_fails()
    history.retried(3, kept=["a#1", "b#1", "c#1"])
    folded = fold(chained(history.facts))
    assert (folded.life, folded.generation, folded.outcome, folded.ended_at) == (Life.LIVE, 2, None, None)
    assert folded.steps[2, "a#1"].outcome == "completed"
    assert (folded.steps[2, "b#1"].failures, folded.steps[2, "b#1"].forgiven) == (1, 1)
    assert (2, "c#1") not in folded.steps


def test_a_flow_retried_twice_keeps_from_what_was_kept() -> None:
    """Goal: the second retry stands on the effective history of the first, not on what that took back."""
    history = History().ask("a#1").done("a#1", asks=["b#1"]).done("b#1", asks=["c#1"]).fails("c#1", None).run_fails()
    history.retried(2, "q1", kept=["a#1", "b#1"]).done("b#1", asks=["c#1"]).fails("c#1", None).run_fails()
    history.retried(7, "q2", kept=["a#1", "b#1", "c#1"])
    folded = fold(chained(history.facts))
    era = folded.generations[-1]
    assert [recorded.seq for recorded in era.facts] == [1, 2, 6, 7, 10]
    assert folded.steps[3, "b#1"].end.seq == 7
    assert "c#1" not in era.steps


def test_a_retried_graph_keeps_its_uncompensated_successes() -> None:
    """Goal: failures and what was undone are made again, other results are kept, wherever they stand."""
    history = History().ask("a", "b", "c", "undo:b").done("a").fails("c").done("b", args=ONE).fails("c", None)
    history.done("undo:b").run_fails().retried(0, kept=["a"], asks=["b", "c"])
    folded = fold(chained(history.facts), graph=True)
    assert folded.generations[-1].steps.keys() == {"a"}
    assert folded.generations[-1].kept == 1
    assert not folded.generations[-1].flow


def test_a_compensation_that_failed_for_good_has_no_outcome_until_somebody_speaks() -> None:
    """Goal: its final failure leaves it stuck; a resumed run tries again, a resolution ends it."""
    history = History().ask("a#1", "undo:a#1").done("a#1", args=ONE).fails("undo:a#1", None)
    assert fold(chained(history.facts)).steps[1, "undo:a#1"].stuck
    history.add(f.AttentionSet, cause="compensation_failed", reason="no", step="undo:a#1").add(
        f.RunResumed, by="", why=""
    )
    state = fold(chained(history.facts)).steps[1, "undo:a#1"]
    assert (state.stuck, state.failures, state.forgiven, state.outcome) == (False, 1, 1, None)
    history.add(f.StepResolved, key="undo:a#1", how="fail", failure=Failure("x", "by hand"))
    assert fold(chained(history.facts)).steps[1, "undo:a#1"].outcome == "completed"


def test_a_step_resolved_to_be_retried_stays_open() -> None:
    """Goal: `resolve --retry` forgives the failures and ends nothing."""
    history = History().ask("a#1").fails("a#1").add(f.StepResolved, key="a#1", how="retry")
    state = fold(chained(history.facts)).steps[1, "a#1"]
    assert (state.outcome, state.failures, state.forgiven, state.retry_at) == (None, 1, 1, None)


def test_the_first_recorded_outcome_stands() -> None:
    """Goal: a second outcome, which the audit will name, changes no state."""
    history = History().ask("a#1").done("a#1").fails("a#1", None)
    state = fold(chained(history.facts)).steps[1, "a#1"]
    assert (state.outcome, state.end.seq, len(state.facts)) == ("completed", 2, 2)


def test_the_keys_of_compensations_name_their_steps() -> None:
    """Goal: a compensation of an earlier generation's step is known by its suffix."""
    assert undo_targets("undo:a#1") == ("a#1",)
    assert undo_targets("undo:a#1@2") == ("a#1@2", "a#1")
    assert undo_targets("a#1") == ()
