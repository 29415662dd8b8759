"""Schedulers written in other conventions: samplers of k-diffusion, classes of diffusers."""
