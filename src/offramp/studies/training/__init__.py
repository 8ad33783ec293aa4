"""Studies that train: a grid of models from YAML, and what their records say together."""
