"""Photographs: who is held out, decoding, the store of pixels, checks, augmentation, and batches on the device."""
