"""Checks of an evaluation: it refuses some reports, and raises doubts about others."""
