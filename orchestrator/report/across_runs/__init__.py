"""Views of more than one run: a list of runs, and two runs side by side."""
