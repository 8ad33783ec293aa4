"""Changes of words, and the word lists that they need."""
