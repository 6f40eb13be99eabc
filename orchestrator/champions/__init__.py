"""Models that come out of a run: folders that are written, opened without running their code, used and learned on."""
