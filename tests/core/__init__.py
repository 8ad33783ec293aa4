"""Tests of the foundations: errors, seeds, traces, run records."""
