"""One file a stage: a frozen Config and run(config, inputs, out, execution)."""
