"""Run a model: once with all exits for a trace, or layer by layer with early exits."""
