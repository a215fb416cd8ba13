"""From bytes to level features: decode, preprocess, backbone, scorer. Torch lives here."""
