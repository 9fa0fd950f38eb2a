"""Healing: what is left after the cut, trained a little more as a whole; the baseline that the papers compare with.

LoRA adapters (arXiv 2106.09685) on the linear maps of the pruned model, trained on the language-model loss as
LLM-Pruner (arXiv 2305.11627, section 3.3) does, and merged into the weights before these are written: the checkpoint
has no adapters and the architecture is what it was.
"""
