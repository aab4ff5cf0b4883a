"""Pictures of schedules: `curves` finds what to draw, `drawing` computes it, the rest draws."""
