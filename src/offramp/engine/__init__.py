"""The adaptive engine: policies, batching and compaction over segments of any framework. No torch."""
