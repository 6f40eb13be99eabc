"""What a user writes and what a trial is: frozen, pure, validated whole."""
