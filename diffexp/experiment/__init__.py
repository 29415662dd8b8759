"""One run: built, sampled, measured, recorded. Knows no Hydra."""
