"""Tests of the engine room, on a toy net whose answers follow from arithmetic on small integers."""
