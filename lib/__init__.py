"""What every part of the project shares; imports nothing from model/, data/ or demo/."""
