"""Gradient conflict between exits: measured during training, and kept as inner products."""
