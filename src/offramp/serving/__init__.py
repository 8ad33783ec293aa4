"""The HTTP service on an engine, and predictions for whole files."""
