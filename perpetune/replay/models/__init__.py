"""Models of a replay: the base model, a fast surrogate, and a cache of both. Imports training and inference."""
