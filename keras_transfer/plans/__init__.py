"""Plans: what trains, at which rates, for how long, as plain data."""
