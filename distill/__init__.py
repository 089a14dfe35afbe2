"""What learns: recipes, data, teachers, signals and students."""
