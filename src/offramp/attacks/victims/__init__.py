"""Victims of an attack: a model, an engine, a function. Each answers texts and counts its queries."""
