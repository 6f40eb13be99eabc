"""What others can watch of a sweep: its log, the logs of its trials, metrics for Prometheus, and a call at its end."""
