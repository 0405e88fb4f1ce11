"""The search for a recipe that meets a goal: what may be changed, what each change costs, and which is chosen."""
