"""What every other package may use: errors, metrics and costs, signals, text. It imports nothing of ours."""
