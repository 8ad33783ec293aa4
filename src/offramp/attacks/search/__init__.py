"""How an attack looks for the strongest text."""
