"""The tests, and the programs that show the bridge at work: demo, bench, faults, soak."""
