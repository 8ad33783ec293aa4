"""Studies: plans, trials, the grid that runs them, and reports over many records."""
