"""What every room uses: named parts, files, seeds and seeded draws."""
