"""What learns and answers in a replay. Imports training and inference."""
