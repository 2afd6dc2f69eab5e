"""Programs: the demo, the soak, the fault matrix, and the writers of documents."""
