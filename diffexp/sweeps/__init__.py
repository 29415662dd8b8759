"""Many runs as one: what a multirun leaves behind."""
