"""The table `diagnostics`: its columns, its rows, and what they warn of."""
