"""Text to tokens to batches: corpora, tokenizers, token files, and baselines for the loss."""
