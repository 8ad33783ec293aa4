"""Fixtures of several files of this folder."""

from tests.studies.trained_sweep import trained

__all__ = ["trained"]
