"""What a complaint says of the names that there are."""

from diffexp.errors import hint, nearest


def test_hints():
    assert nearest("stepz", ["steps", "seed"]) == "; did you mean 'steps'?"
    assert nearest("zzz", ["steps"]) == ""
    assert hint("DDIM", ["ddim", "ddpm"]) == "; did you mean 'ddim'? (available: ddim, ddpm)"
    known = ["ddim", "diffusers/ddim", "diffusers/lms"]
    assert hint("dim", known) == "; did you mean 'ddim'? (available: ddim, diffusers/...)"
    assert hint("diffusers/lmz", known).endswith("'diffusers/lms'? (available: ddim, diffusers/ddim, diffusers/lms)")
