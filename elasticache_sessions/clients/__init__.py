"""Cache clients: one small file per store, all to the contract in `base`."""
