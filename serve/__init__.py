"""The service around the model: Ray Serve, FastAPI, pydantic. Importing the package itself imports none of them."""
