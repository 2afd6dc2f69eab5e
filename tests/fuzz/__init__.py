"""Damaged and hostile bytes against the data plane: `make fuzz`."""
