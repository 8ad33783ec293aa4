"""Train multi-exit models: a strategy defines which losses reach which parameters."""
