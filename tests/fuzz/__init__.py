"""A coverage-guided fuzzer over the decoders (`make fuzz`), and its corpus, which the tests replay."""
