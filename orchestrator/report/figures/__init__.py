"""Figures of a run for a paper: what they claim is the answer's, and what they draw is in the tables."""
