"""The whole chain on real data: de-identify, train together, seal, compute on ciphertexts, and keep the ledger."""
