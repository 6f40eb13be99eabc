"""What people read: the answer, the plan, a trial, the catalogue, progress."""
