"""Where pieces come from. Each source starts what it is told to and reports the end of each assignment once."""
