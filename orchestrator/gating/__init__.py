"""Whether a challenger may replace the champion: evidence and a policy in, PASS, FAIL or INCONCLUSIVE out."""
