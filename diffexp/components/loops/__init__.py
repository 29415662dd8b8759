"""Loop strategies: how a sampler and a model are put to work on a batch."""
