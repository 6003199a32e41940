"""Text to tokens to batches: corpora, tokenizers, token files, and yardsticks for the loss."""
