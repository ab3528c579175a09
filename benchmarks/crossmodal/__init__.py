"""Cross-modal recall under control: a small vision-language model that learns, forgets and recalls drawn people."""
