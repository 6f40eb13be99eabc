"""What several methods share: buffers, importances, the quadratic penalty, QPs and a VAE."""
