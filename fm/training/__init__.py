"""The loop over epochs, the solvers that change the parameters, checkpoints."""
