from app.jobs.states import FINAL, STAGES, TRANSITIONS, State, Trigger, sources, target


def test_every_trigger_leads_to_one_state() -> None:
    for trigger in Trigger:
        assert target(trigger) in State
        assert sources(trigger)


def test_a_job_that_succeeded_never_changes_again() -> None:
    assert not [trigger for (state, trigger) in TRANSITIONS if state is State.SUCCEEDED]


def test_only_a_retry_leaves_a_final_state() -> None:
    assert {trigger for (state, trigger) in TRANSITIONS if state in FINAL} == {Trigger.RETRY}


def test_every_state_can_reach_a_final_one() -> None:
    for state in State:
        seen, frontier = set(), {state}
        while frontier:
            seen |= frontier
            frontier = {after for (before, _), after in TRANSITIONS.items() if before in frontier} - seen
        assert seen & FINAL


def test_stages_are_those_of_the_contract() -> None:
    assert STAGES == ("fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark", "publish")
