"""What the scripts train on; they know nothing else of each other."""
