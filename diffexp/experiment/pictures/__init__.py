"""The images of a run: ``grid.png``, film strip and animation, points on axes, previews of latents."""
