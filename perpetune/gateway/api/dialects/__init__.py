"""The API's ways to ask and to be answered, each translated to and from chat completions."""
