"""The page at `/`: a clip, a question, the answer and what the selector looked at. `routes.playground` serves it."""
