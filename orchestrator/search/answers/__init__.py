"""The answer of a sweep, from its search: what is recommended, how sure, and what would change it."""
