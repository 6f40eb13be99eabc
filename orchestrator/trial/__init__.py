"""One trial: the sequential protocol in pure PyTorch, with no cluster and no tables."""
