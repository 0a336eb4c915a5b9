"""What `perpetune doctor` checks. Each check looks and changes nothing."""
