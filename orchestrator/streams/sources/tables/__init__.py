"""A user's own table: from files to features, classes and tasks."""
