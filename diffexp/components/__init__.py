"""The plugins that ship: one folder for each kind, named as its config group."""
