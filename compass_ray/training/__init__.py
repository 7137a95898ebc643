"""Training of adapters and complete models: losses, batches, optimizer steps, ECDA, and the state that updates need. No Ray."""
