"""What must hold when inputs, machines and stores are at their worst: measured against goals."""
