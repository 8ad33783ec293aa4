"""Gradient conflict between exits, measured during training as inner products."""
