"""The pictures of a run: grid.png, the film strip, points on axes, previews of latents."""
