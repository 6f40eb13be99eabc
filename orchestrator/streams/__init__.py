"""Data sets as arrays, and streams: the lists of tasks that they are cut into."""
