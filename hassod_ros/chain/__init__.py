"""Long computations as chains of commands, each done once: the default model, retraining."""
