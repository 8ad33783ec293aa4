"""Texts under attack: words with spans, edits, and their display."""
