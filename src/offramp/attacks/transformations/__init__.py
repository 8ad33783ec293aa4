"""How a word is changed, and the word lists that this needs."""
