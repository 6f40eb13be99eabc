"""Data sets as arrays, and the streams of tasks that they are cut into."""
