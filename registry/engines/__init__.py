"""One adapter per engine: every peculiarity of an engine lives in its adapter and nowhere else."""
