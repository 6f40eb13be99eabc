"""A run's answer for papers and spreadsheets: tables, the protocol in words, and the literature."""
