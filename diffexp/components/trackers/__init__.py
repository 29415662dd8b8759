"""Where runs are logged: one tracker a file."""
