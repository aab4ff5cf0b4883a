"""Pictures of schedules: `curves` finds what to draw, `picture` computes it, the rest draws."""
