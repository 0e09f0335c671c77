"""Optimizers and learning-rate schedules, with the names of `torch.optim`. The update rules are in the core."""

from wengert.optim import lr_scheduler
from wengert.optim.adam import Adam, AdamW
from wengert.optim.optimizer import Optimizer
from wengert.optim.rmsprop import RMSprop
from wengert.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
