"""Boundaries of tasks found by drift detectors: the signal that is watched, the detectors, and the cut."""
