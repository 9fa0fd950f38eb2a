"""Training of replacement blocks: the pairs, the loop, and the state that survives a kill."""

from worker.engine.training.loop import History, Plan, fit, learning_rate_at, make_optimizer, train_step
from worker.engine.training.pairs import Arguments, Pairs
from worker.engine.training.state import Keeper

__all__ = [
    "Arguments", "History", "Keeper", "Pairs", "Plan", "fit", "learning_rate_at", "make_optimizer", "train_step",
]  # fmt: skip
