"""What the runs learn from and are measured on: rendered scenes, our records, the public question sets."""
