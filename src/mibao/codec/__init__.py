"""Values to bytes and back, without secrets: canonical encoding, records, frames, fixed point, tensor tables."""
