"""From drift to a better adapter: update, gate and promotion (COMPASS, section 3.3)."""
