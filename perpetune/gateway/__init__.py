"""The HTTP server in front of the champion. Imports engines and the prediction log; nothing but the CLI imports it."""
