"""Asking a server with the API of OpenAI."""
