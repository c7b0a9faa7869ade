"""The training loop. It knows nothing of what is trained: a `Task` brings that, `training.runs` has the tasks."""
