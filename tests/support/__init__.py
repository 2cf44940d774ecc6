"""What tests and benchmarks stand on: servers, worlds, controllers."""
