"""The plugins that can be chosen, with their options and types, read from source code without importing it."""
