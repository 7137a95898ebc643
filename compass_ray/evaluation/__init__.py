"""Tools that measure the method: experiments over variants of a run, and simulations of drift and forgetting."""
