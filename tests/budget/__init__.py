"""The budget: what a message costs in the pure layers, in instructions. `make budget` holds it to the record."""
