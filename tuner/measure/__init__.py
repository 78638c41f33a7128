"""Times variants on a GPU, or estimates their time without one."""
