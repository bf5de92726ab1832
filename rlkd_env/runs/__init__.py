"""The knowledge-distillation run, its reward, its hooks, and its configuration."""
