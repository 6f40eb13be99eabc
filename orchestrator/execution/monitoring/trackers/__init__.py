"""`--log-to`: a sweep in MLflow, TensorBoard or Weights & Biases, from its tables. Nothing is read back from there."""
