"""Files that deploy the service, and the model that says how much of it is needed."""
