"""From messages to tokens: chat templates, tokenizers and control tokens."""
