"""Fine-tuning: needs torch, transformers and peft alone, so that it runs on a bare GPU machine."""
