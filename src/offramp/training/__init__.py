"""Train multi-exit models: a strategy says which losses reach which parameters."""
