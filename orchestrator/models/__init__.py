"""Models by name, and a network built from its settings."""
