"""The methods, one per module."""
