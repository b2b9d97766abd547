"""Darkroom on one machine without containers: embedded Valkey and S3, the fal simulator, our processes."""
