"""What every call passes through, in this order: errors, access, limits, decoding, validation."""
