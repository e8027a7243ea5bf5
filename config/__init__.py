"""What the operator wrote: validated and frozen. Depends on nothing of ours."""
