"""The HTML page of a run: one file that opens offline and asks nothing of the network."""
