"""The routes and bodies of OpenAI's API, feedback and releases. Imports engines and releases."""
