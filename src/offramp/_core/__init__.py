"""Foundations shared by every room: errors, traces, seeds and run records. No torch at import."""
