"""Training: a session reads what a command asks for, fit takes the steps, a stage says which."""
