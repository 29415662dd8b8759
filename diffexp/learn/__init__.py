"""Plans fitted to one model: levels, timesteps and coefficients of a table are set free and learned."""
