"""Self-supervised pre-training of the small ViT that discovery takes its features from."""
