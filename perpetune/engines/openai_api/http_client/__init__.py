"""HTTP/1.1 to model servers, with the parser that the gateway's own server uses."""
