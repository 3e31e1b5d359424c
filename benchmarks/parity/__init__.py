"""Our losses and samplers beside one step of the published programs that they stand for."""
