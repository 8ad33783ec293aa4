"""What an attack minimises."""
