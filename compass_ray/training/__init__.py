"""Training of adapters and whole models: losses, batches, optimizer steps, ECDA, and the state that updates need. No Ray."""
