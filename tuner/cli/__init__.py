"""The command line: each file parses one command, calls the engine and prints."""
