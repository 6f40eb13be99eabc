"""The table `evaluations`: how scores went while a trial was trained."""
