"""Texts under attack: words with spans, edits, and how they are shown."""
