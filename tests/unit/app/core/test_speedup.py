"""What is said about a speed-up."""

from app.core.speedup import in_words


def test_an_interval_around_1_is_too_noisy_to_tell() -> None:
    assert in_words([1.03, 1.2], 5) == "median of 5 paired rounds, 95 % 1.03 to 1.20"
    assert in_words([0.97, 1.12]) == "median of paired rounds, 95 % 0.97 to 1.12: too noisy to tell"
    assert in_words([0.7, 0.9], 5) == "median of 5 paired rounds, 95 % 0.70 to 0.90"


def test_what_is_not_known_is_left_out() -> None:
    assert in_words(None, 5) == "median of 5 paired rounds"
    assert in_words(None, 1) == "one pair of runs"
