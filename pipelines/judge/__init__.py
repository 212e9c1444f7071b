"""Images that models are judged by: sampled once by the model as it is, then by others."""
