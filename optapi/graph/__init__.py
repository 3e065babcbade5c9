"""All that knows the insides of PyTensor: its versions, loops, batches, oracles, linkers and backends."""
