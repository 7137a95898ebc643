"""The documentation site: pages generated from the code, and screenshots."""
