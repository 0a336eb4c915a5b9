"""Writing text token by token: batches, sampling, grammars, detokenising."""
