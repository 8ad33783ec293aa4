"""Export a trained model to a folder that runs without torch: `offramp.export`."""
