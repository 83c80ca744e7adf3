"""What training needs from the machine: devices, memory, checkpoints, atomic writes, and a place to show output."""
