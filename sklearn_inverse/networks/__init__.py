"""Networks and their training through skorch."""
