"""What holds at every look at data that goes on arriving."""
