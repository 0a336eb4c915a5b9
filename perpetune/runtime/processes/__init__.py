"""Child processes of one machine: started, watched, ended with all that they started."""
