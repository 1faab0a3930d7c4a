"""The experiment: sessions from a recipe, and recordings from a script."""
