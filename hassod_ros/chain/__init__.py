"""From photographs to the model that ships: all stages one after the other, each done once."""
