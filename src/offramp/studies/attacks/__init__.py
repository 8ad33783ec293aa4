"""Studies that attack: trained models × exit rules × recipes, and what their records say together."""
