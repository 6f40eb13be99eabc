"""What goes on inside a trial: Fisher information, plasticity, buffers and capacity, measured beside its training."""
