"""A person looks at questions with their clips, keeps or drops them: `python -m training.review --help`."""
