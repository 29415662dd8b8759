"""What there is to choose from, read from source code without importing it: plugins, their options and types."""
