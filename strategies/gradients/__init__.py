"""The loss of the labels, and its gradient by fewer operations than a graph takes."""
