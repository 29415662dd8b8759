"""What ships: one folder for each kind of plugin, called as its config group."""
