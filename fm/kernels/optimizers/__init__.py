"""One file per optimizer; ``fm.recipes`` names them, ``fm.kernels.steps`` says what each offers."""
