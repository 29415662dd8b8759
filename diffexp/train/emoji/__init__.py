"""Training of the text-to-image model that draws emoji from their English names."""
