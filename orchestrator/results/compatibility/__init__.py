"""Whether the rows of a run fit what is to be run: the same protocol and data, software and devices."""
