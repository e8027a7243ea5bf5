"""modelyard: one OpenAI-compatible endpoint for many models."""

__version__ = "0.1.0"
