"""Chat completions: the request, the answers sent and the reply."""
