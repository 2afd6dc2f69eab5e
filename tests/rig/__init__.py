"""The rig: private brokers, faults, an independent client and the bridge as a process of its own."""
