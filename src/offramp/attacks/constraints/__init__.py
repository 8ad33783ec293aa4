"""What an attack must not do."""
