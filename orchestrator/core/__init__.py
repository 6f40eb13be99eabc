"""What every other package may use: errors, metrics, costs, text. It imports nothing of ours."""
