"""The server's composition root."""
