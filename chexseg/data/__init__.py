"""The published data sets, image decoding, and the parquet shards that stages exchange."""
