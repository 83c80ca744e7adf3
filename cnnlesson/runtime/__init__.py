"""What training needs of the machine: devices, memory, checkpoints, files that are whole, a place to show things."""
