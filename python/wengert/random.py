"""The state of the random numbers: a seed, and a counter that each random tensor moves on when it is recorded."""

from __future__ import annotations

from wengert._core import get_rng_state, initial_seed, manual_seed, set_rng_state

__all__ = ["get_rng_state", "initial_seed", "manual_seed", "set_rng_state"]
