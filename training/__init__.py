"""Makes what the service loads: the embedded checkpoint's tokenizer and sample, scenes, questions, training, export."""
