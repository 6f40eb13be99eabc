"""What the commands share: options and how their values are read, exit codes, the printed answer."""
