"""Which inputs are computed from a shared beginning, and in what batches."""

from worker.engine.evaluation.inputs import Input, Question, batches, questions


def question(given: int, *behind: int, first: int = 0) -> list[Input]:
    return [Input([first] * (given + 1) + [9, option] * (tail // 2), given) for option, tail in enumerate(behind)]


def test_only_beginnings_that_save_much_are_shared() -> None:
    long, short, different = question(100, 4, 6), question(20, 4, 6, first=1), question(100, 4, first=2)
    mostly_options = question(40, 200, 200, first=3)
    shared, alone = questions([*long, *short, *different, *mostly_options])
    assert [(one.inputs, one.given) for one in shared] == [(long, 100)]
    assert alone == [*short, *different, *mostly_options]


def test_batches_hold_alike_questions_and_keep_to_both_limits() -> None:
    shared, _ = questions([one for n, given in enumerate((100, 95, 90, 40)) for one in question(given, 4, 4, first=n)])

    def sizes(tokens_at_once: int, tokens_kept: int) -> list[list[int]]:
        return [[one.given for one in batch] for batch in batches(shared, tokens_at_once, tokens_kept)]

    assert sizes(10_000, 10_000) == [[100, 95, 90], [40]]
    assert sizes(200, 10_000) == [[100, 95], [90], [40]]
    assert sizes(10_000, 500) == [[100, 95], [90], [40]]
    assert sizes(1, 1) == [[100], [95], [90], [40]], "a question stays whole"
    assert Question(question(100, 4, 6), 100).longest == 107
