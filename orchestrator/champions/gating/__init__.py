"""What a gate looks at, from two model folders or two runs."""
