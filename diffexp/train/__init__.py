"""Training of what the package ships: the MNIST denoiser and the MNIST feature network."""
