"""What the small model is taught before and beside questions: dense lessons whose heads are dropped afterwards."""
