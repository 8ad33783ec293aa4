"""Searches for the strongest text."""
