"""Where data come from: built-in data sets, image folders and tables."""
