"""Where two models part: which module's own code, and which source line."""
