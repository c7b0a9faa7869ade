"""The model in three stages - encoder, selector, decoder - and what surrounds it. `import models` imports no torch."""
