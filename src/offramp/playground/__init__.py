"""A page on which a text is typed, watched as it climbs the exits, and attacked."""
