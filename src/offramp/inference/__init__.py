"""Run a model: the whole trace once, or layer by layer with exits."""
