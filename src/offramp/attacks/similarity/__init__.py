"""How close an adversarial text is to its original."""
