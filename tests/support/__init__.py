"""What unit tests, simulation and fuzzing share: encoders, scenes, the naive window and the scripted broker."""
