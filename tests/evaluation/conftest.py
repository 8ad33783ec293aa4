"""Fixtures of several files of this folder."""

from tests.evaluation.trained_sweep import trained

__all__ = ["trained"]
