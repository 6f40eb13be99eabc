"""The settings of a model, and the network that is built from them."""
